//! Examples of the man pages.

/// A description, and the command lines.
pub type Example = (&'static str, &'static [&'static str]);

/// Examples of a command.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn examples(command: &str) -> &'static [Example] {
    match command {
        "keyslot" => &[
            (
                "Encrypt a disk image, and see which keyslots a passphrase opens:",
                &[
                    "keyslot convert disk.raw -O luks2 disk.luks",
                    "keyslot check disk.luks --secret prompt",
                ],
            ),
            (
                "Check all images, and list those that are damaged:",
                &["keyslot check --output json *.img | jq -r 'select(.error) | .filename'"],
            ),
        ],
        "keyslot-add" => &[
            ("Add a second passphrase, with prompts for both:", &["keyslot add disk.luks"]),
            (
                "Add the contents of a file, with PBKDF2 for GRUB:",
                &[
                    "keyslot add --secret file:old.key --new-secret file:new.key --pbkdf pbkdf2 disk.luks",
                ],
            ),
        ],
        "keyslot-amend" => &[
            (
                "Add a secret, as qemu-img amend does:",
                &[
                    "keyslot amend --object secret,id=old,file=old.key --object secret,id=new,file=new.key \\",
                    "    --image-opts driver=luks,file.filename=disk.luks,key-secret=old \\",
                    "    -o state=active,new-secret=new,iter-time=500",
                ],
            ),
            (
                "Erase one keyslot and fill another, both or neither:",
                &[
                    "keyslot amend --secret file:old.key --object secret,id=new,file=new.key \\",
                    "    -o keys.0.state=inactive,keys.0.keyslot=3 \\",
                    "    -o keys.1.state=active,keys.1.keyslot=4,keys.1.new-secret=new disk.luks",
                ],
            ),
        ],
        "keyslot-benchmark" => &[(
            "Measure one cipher with two 256-bit keys:",
            &["keyslot benchmark --cipher aes-xts-plain64 --key-size 512"],
        )],
        "keyslot-check" => &[
            (
                "See which keyslots a passphrase opens:",
                &["keyslot check --secret prompt disk.luks"],
            ),
            (
                "List the images that a key file opens:",
                &[
                    "keyslot check --secret file:old.key --output json *.img \\",
                    "    | jq -r 'select(.\"secret-opens\"[0] != null) | .filename'",
                ],
            ),
        ],
        "keyslot-completions" => {
            &[("Complete in this shell:", &["source <(keyslot completions bash)"])]
        }
        "keyslot-config" => &[(
            "Give a keyslot priority, and label the image:",
            &["keyslot config --keyslot 1 --priority prefer --label backup disk.luks"],
        )],
        "keyslot-convert" => &[
            (
                "Encrypt an image, and compare what was written:",
                &["keyslot convert --verify disk.raw -O luks2 --new-secret file:new.key disk.luks"],
            ),
            ("Decrypt it again:", &["keyslot convert --secret file:new.key disk.luks disk.raw"]),
        ],
        "keyslot-create" => &[
            (
                "Create a LUKS2 image of 10 GiB, with a prompt for the passphrase:",
                &["keyslot create -f luks2 disk.luks 10G"],
            ),
            (
                "Create a LUKS1 image for QEMU, as qemu-img create does:",
                &[
                    "keyslot create -f luks --object secret,id=s,file=new.key -o key-secret=s disk.luks 10G",
                ],
            ),
        ],
        "keyslot-erase" => &[
            (
                "Erase a keyslot, checking that another secret opens the image:",
                &["keyslot erase --keyslot 3 --secret file:old.key disk.luks"],
            ),
            (
                "Erase every keyslot that a lost key file opens:",
                &["keyslot erase --old-secret file:lost.key disk.luks"],
            ),
        ],
        "keyslot-header" | "keyslot-header-backup" => {
            &[("Save a header:", &["keyslot header backup disk.luks disk.hdr"])]
        }
        "keyslot-header-restore" => &[(
            "See what a restore would change, and do it:",
            &[
                "keyslot header restore --dry-run disk.hdr disk.luks",
                "keyslot header restore --yes disk.hdr disk.luks",
            ],
        )],
        "keyslot-is-luks" => &[(
            "Test an image in a script:",
            &["if keyslot is-luks disk.img; then echo encrypted; fi"],
        )],
        "keyslot-info" => &[
            ("Show the header of an image:", &["keyslot info disk.luks"]),
            (
                "Compare LUKS2 metadata with cryptsetup's view of it:",
                &[
                    "keyslot info --metadata disk.luks | diff - \\",
                    "    <(cryptsetup luksDump --dump-json-metadata disk.luks)",
                ],
            ),
        ],
        "keyslot-man" => &[("Install the man pages:", &["keyslot man /usr/local/share/man/man1"])],
        "keyslot-repair" => &[(
            "See what a repair would do, and do it:",
            &["keyslot repair --dry-run disk.luks", "keyslot repair disk.luks"],
        )],
        "keyslot-replace" => &[(
            "Replace a key file with another, in its keyslot:",
            &["keyslot replace --old-secret file:old.key --new-secret file:new.key disk.luks"],
        )],
        "keyslot-token" | "keyslot-token-list" => {
            &[("List the tokens of an image:", &["keyslot token list disk.luks"])]
        }
        "keyslot-token-export" => &[(
            "Save a token:",
            &["keyslot token export --token 0 --json-file token.json disk.luks"],
        )],
        "keyslot-token-import" => &[(
            "Import a saved token:",
            &["keyslot token import --token 0 --json-file token.json disk.luks"],
        )],
        "keyslot-token-remove" => {
            &[("Remove a token:", &["keyslot token remove --token 0 disk.luks"])]
        }
        "keyslot-uuid" => {
            &[("Give a copied image a UUID of its own:", &["keyslot uuid --uuid random copy.luks"])]
        }
        _ => &[],
    }
}
