"""Runs a command on a terminal of its own: on_terminal.py SCRIPT COMMAND...

SCRIPT is JSON, a list of steps. Each waits until the command has printed `expect` and then types
`type` (ctrl-C is \\u0003; with `echo` it may be seen), or sends the signal `kill`, with `stop` SIGSTOP to
the children of the command; with `stopped` it waits first until a child is stopped;
with `anywhere`, `expect` may have come before the last step. The transcript goes to standard output as JSON,
with the exit status (negative: the signal), whether the terminal echoed when each step was typed and
at the end, and how many threads the command had at each step.
"""
import json, os, pty, select, signal, subprocess, sys, termios, time

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
ours, theirs = pty.openpty()


def echoes():
    return bool(termios.tcgetattr(theirs)[3] & termios.ECHO)


def children():
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as children:
        return [int(pid) for pid in children.read().split()]


def has_stopped_child():
    try:
        stats = [open(f"/proc/{pid}/stat").read() for pid in children()]
    except FileNotFoundError:
        return False
    return any(stat.rsplit(")", 1)[1].split()[0] == "T" for stat in stats)


def start():
    os.setsid()
    # A background job, or nohup, has some of them ignored, and so would the command.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    # The first terminal that a session's leader opens is its controlling one.
    os.close(os.open(os.ttyname(theirs), os.O_RDWR))


child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=start)
text, seen, echo, threads, deadline = b"", 0, [], [], time.monotonic() + 30


def read(timeout):
    if select.select([ours], [], [], timeout)[0]:
        return os.read(ours, 4096)
    return b""


for step in steps:
    start = 0 if step.get("anywhere") else seen
    while text.find(step["expect"].encode(), start) < 0 and time.monotonic() < deadline:
        text += read(0.1)
    seen = max(seen, text.find(step["expect"].encode(), start) + len(step["expect"].encode()))
    # The prompt is printed a moment before or after the echo goes.
    while echoes() and not step.get("echo") and time.monotonic() < deadline:
        time.sleep(0.01)
    while step.get("stopped") and not has_stopped_child() and time.monotonic() < deadline:
        time.sleep(0.01)
    echo.append(echoes() and not step.get("echo"))
    threads.append(len(os.listdir(f"/proc/{child.pid}/task")))
    os.write(ours, step["type"].encode())
    if "kill" in step:
        child.send_signal(step["kill"])
    if step.get("stop"):
        for pid in children():
            os.kill(pid, signal.SIGSTOP)
while child.poll() is None and time.monotonic() < deadline:
    text += read(0.05)
if child.poll() is None:
    child.kill()
# The kernel may hand over what was written only after the writer has gone.
while chunk := read(0.3):
    text += chunk
result = {"status": child.wait(), "text": text.decode(errors="replace")}
print(json.dumps({**result, "echo_while_typing": echo, "echo_after": echoes(), "threads": threads}))
