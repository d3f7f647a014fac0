//! Man pages: the sections that clap renders, and keyslot's own.

mod examples;
mod json;

use std::fs;
use std::path::Path;

use clap::builder::Str;
use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use keyslot::{Error, Operation, Result};

use super::Status;

/// Writes a page for `command` and one for each of its commands, `help` excepted.
pub fn write(command: Command, directory: &Path) -> Result<()> {
    let mut command = with_aliases(command.disable_help_subcommand(true));
    command.build();
    fs::create_dir_all(directory)
        .map_err(|e| Error::io("make the directory", e).with_path(directory))?;
    let names = all_names(&command);
    pages(&command, &names, &mut |name, page| {
        let path = directory.join(format!("{name}.1"));
        fs::write(&path, page)
            .map_err(|e| Error::failed(Operation::Write, "the man page", e).with_path(path))
    })
}

/// Adds the aliases of options to their help, as `--help` does.
fn with_aliases(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let Some(aliases) = argument.get_visible_aliases() else { return argument };
        let names: Vec<_> = aliases.iter().map(|name| format!("--{name}")).collect();
        let help = argument.get_long_help().or(argument.get_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let help = format!("{help} [alias: {}]", names.join(", "));
        argument.help(help.clone()).long_help(help)
    });
    command.mut_subcommands(with_aliases)
}

fn pages(
    command: &Command,
    names: &[String],
    write: &mut dyn FnMut(&str, Vec<u8>) -> Result<()>,
) -> Result<()> {
    for command in command.get_subcommands() {
        pages(command, names, write)?;
    }
    let name = name(command);
    write(&name, page(command, &name, names).map_err(|e| Error::io("make a man page", e))?)
}

/// `keyslot-token-list`
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn all_names(command: &Command) -> Vec<String> {
    let below = command.get_subcommands().flat_map(all_names);
    std::iter::once(name(command)).chain(below).collect()
}

fn page(command: &Command, name: &str, names: &[String]) -> std::io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .source(concat!("keyslot ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(command).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let is_root = name == "keyslot";
    // The root's notes are the exit statuses, which have a section.
    if !is_root && let Some(notes) = command.get_after_long_help().or(command.get_after_help()) {
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES"]);
        for paragraph in notes.to_string().split("\n\n") {
            roff.control("PP", []);
            roff.text([roman(paragraph.replace('\n', " "))]);
        }
        roff.to_writer(&mut page)?;
    }
    exit_status().to_writer(&mut page)?;
    if is_root {
        environment().to_writer(&mut page)?;
    }
    json_section(name).to_writer(&mut page)?;
    example_section(name).to_writer(&mut page)?;
    see_also(name, names).to_writer(&mut page)?;
    Ok(page)
}

/// The commands with their operands, or the options with their values.
fn synopsis(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    if command.has_subcommands() {
        for command in command.get_subcommands() {
            roff.text(invocation(command));
            roff.control("br", []);
        }
        return roff;
    }
    let mut line = vec![bold(bin_name(command)), roman(" ")];
    for argument in command.get_arguments().filter(|it| is_option(it)) {
        line.extend(option(argument));
        line.push(roman(" "));
    }
    line.extend(operands(command));
    roff.text(line);
    roff
}

fn is_option(argument: &Arg) -> bool {
    !argument.is_positional() && !argument.is_hide_set()
}

fn bin_name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

/// `keyslot add [options] IMAGE`
fn invocation(command: &Command) -> Vec<Inline> {
    let mut line = vec![bold(bin_name(command)), roman(" ")];
    if command.has_subcommands() {
        line.push(italic("COMMAND"));
        return line;
    }
    line.extend([roman("["), italic("OPTIONS"), roman("] ")]);
    line.extend(operands(command));
    line
}

/// `[-o|--options OPTS]...`
fn option(argument: &Arg) -> Vec<Inline> {
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let mut line = Vec::new();
    for (i, name) in short.into_iter().chain(long).enumerate() {
        line.extend((i > 0).then(|| roman("|")));
        line.push(bold(name));
    }
    if argument.get_action().takes_values() {
        line.push(roman(" "));
        line.push(italic(value_name(argument)));
    }
    if !argument.is_required_set() {
        line.insert(0, roman("["));
        line.push(roman("]"));
    }
    if matches!(argument.get_action(), clap::ArgAction::Append) {
        line.push(roman("..."));
    }
    line
}

fn operands(command: &Command) -> Vec<Inline> {
    let mut line = Vec::new();
    for argument in command.get_positionals() {
        line.push(italic(value_name(argument)));
        let takes_more = argument.get_num_args().is_some_and(|range| range.max_values() > 1);
        if takes_more && argument.get_value_names().is_none_or(|names| names.len() == 1) {
            line.push(roman("..."));
        }
        line.push(roman(" "));
    }
    line
}

fn value_name(argument: &Arg) -> String {
    match argument.get_value_names() {
        Some(names) => names.iter().map(Str::as_str).collect::<Vec<_>>().join(" "),
        None => argument.get_id().as_str().to_uppercase(),
    }
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for status in Status::ALL {
        roff.control("TP", []);
        roff.text([bold(status.code().to_string())]);
        roff.text([roman(status.meaning())]);
    }
    roff.control("PP", []);
    roff.text([roman("Under the name qemu-img, every failure exits with 1.")]);
    roff
}

/// The members of the command's JSON, if it prints any.
fn json_section(name: &str) -> Roff {
    let mut roff = Roff::new();
    let lists = json::members(name);
    if lists.is_empty() {
        return roff;
    }
    roff.control("SH", ["JSON"]);
    let intro = match name {
        "keyslot" => JSON_INTRO,
        "keyslot-info" => JSON_OF_INFO,
        _ => JSON_OF_OTHERS,
    };
    for paragraph in intro {
        roff.text([roman(*paragraph)]);
        roff.control("PP", []);
    }
    for json::Member { path, kind, text } in lists.iter().copied().flatten() {
        roff.control("TP", []);
        roff.text([bold(*path), roman(format!(" ({kind})"))]);
        roff.text([roman(*text)]);
    }
    roff
}

const JSON_INTRO: &[&str] = &[
    "With --output json a command prints one JSON object for each image, each on a line of its own \
     (JSON Lines), whether one image is named or many. Only keyslot info indents its objects, as \
     qemu-img does.",
    "Sizes and offsets are in bytes, unless the name ends in -bits, -kib, -ms or milliseconds. \
     New members may be added, so a program must ignore those that it does not know.",
    "A failure is printed as an object too, besides the message on standard error. Commands that \
     take several images print it in place of the image's object, or add its error member to that \
     object. It has these members:",
];

const JSON_OF_INFO: &[&str] = &[
    "One object for each image, indented, with the names of qemu-img info; with --backing-chain a \
     list of one. Failures are described in keyslot(1). The members are:",
];

const JSON_OF_OTHERS: &[&str] =
    &["One object for each image, each on a line of its own. Failures are described in \
     keyslot(1). The members are:"];

fn environment() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["ENVIRONMENT"]);
    roff.control("TP", []);
    roff.text([bold("KEYSLOT_QEMU_IMG")]);
    roff.text([roman(QEMU_IMG)]);
    roff
}

const QEMU_IMG: &str = "Under the name qemu-img, the path or name of the program that gets the command \
                        lines which are not about LUKS1. If empty, keyslot runs them itself, and \
                        refuses what it does not support. The default is the next qemu-img on PATH that \
                        is not keyslot.";

fn example_section(name: &str) -> Roff {
    let mut roff = Roff::new();
    let examples = examples::examples(name);
    if examples.is_empty() {
        return roff;
    }
    roff.control("SH", ["EXAMPLES"]);
    for (text, lines) in examples {
        roff.control("PP", []);
        roff.text([roman(*text)]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        for line in *lines {
            roff.text([roman(*line)]);
        }
        roff.control("fi", []);
        roff.control("RE", []);
    }
    roff
}

fn see_also(name: &str, names: &[String]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let ours = names.iter().filter(|other| *other != name).map(String::as_str);
    let related: Vec<_> = match name {
        "keyslot" => ours.collect(),
        _ => ours.filter(|other| is_near(name, other)).collect(),
    };
    let ours = related.into_iter().map(|name| (name, "1"));
    let mut line = Vec::new();
    for (name, section) in ours.chain([("qemu-img", "1"), ("cryptsetup", "8")]) {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(name), roman(format!("({section})"))]);
    }
    roff.text(line);
    roff
}

/// Whether page `other` is listed in SEE ALSO of `name`: parents, children, siblings and related
/// pages.
fn is_near(name: &str, other: &str) -> bool {
    const RELATED: [&[&str]; 3] = [
        &["keyslot-add", "keyslot-erase", "keyslot-replace", "keyslot-amend"],
        &["keyslot-check", "keyslot-info", "keyslot-repair", "keyslot-header"],
        &["keyslot-create", "keyslot-convert", "keyslot-benchmark"],
    ];
    let parent = |name: &str| name.rsplit_once('-').map(|(parent, _)| parent.to_owned());
    let is_related = RELATED.iter().any(|set| set.contains(&name) && set.contains(&other));
    let is_sibling = parent(name) == parent(other) && parent(name).as_deref() != Some("keyslot");
    other == "keyslot"
        || is_related
        || is_sibling
        || parent(name).as_deref() == Some(other)
        || parent(other).as_deref() == Some(name)
}
