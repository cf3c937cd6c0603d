//! What is shown again and again: `ps --watch`, and the screen of `top`.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use crate::world::{World, binary, eventually, program};

/// A command on a terminal of its own.
struct Terminal(Child);

impl Terminal {
    fn new(world: &World, words: &str) -> Self {
        let line = format!(
            "stty rows 20 cols 140; {} --root {} {words}",
            binary().display(),
            world.root().display()
        );
        let child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn press(&mut self, keys: &str) {
        let input = self.0.stdin.as_mut().unwrap();
        input.write_all(keys.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// All that it showed, when it has ended; its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let mut text = Vec::new();
        self.0.stdout.take().unwrap().read_to_end(&mut text).unwrap();
        let code = self.0.wait().unwrap().code();
        (String::from_utf8_lossy(&text).into_owned(), code)
    }
}

#[test]
fn the_screen_shows_containers_and_does_what_keys_say() {
    let Some(world) = World::with_busybox().filter(|_| program("script")) else {
        return;
    };
    let script = "trap 'exit 0' TERM; echo hello from the log; while :; do sleep 0.1; done";
    world
        .dhow(&[
            "run",
            "-d",
            "--name",
            "first",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    let mut terminal = Terminal::new(&world, "top");
    terminal.press("l");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    terminal.press("p");
    eventually("paused", || {
        world.inspect("first", "{{.State.Status}}") == "paused"
    });
    std::thread::sleep(std::time::Duration::from_millis(1500));
    terminal.press("p");
    eventually("running", || {
        world.inspect("first", "{{.State.Status}}") == "running"
    });
    std::thread::sleep(std::time::Duration::from_millis(1500));
    terminal.press("s");
    eventually("exited", || {
        world.inspect("first", "{{.State.Status}}") == "exited"
    });
    terminal.press("q");
    let (text, code) = terminal.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("> first") && text.contains("hello from the log"),
        "{text}"
    );
    assert!(text.contains("1 of 1 containers run"), "{text}");
    // The person's own screen is back.
    assert!(
        text.contains("\x1b[?1049h") && text.trim_end().ends_with("\x1b[?1049l"),
        "{text:?}"
    );
    world.say("top").exits(1).says("needs a terminal");
}

#[test]
fn a_list_is_shown_again() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("create --name some busybox true").ok();
    let mut command = world.command(&["ps", "-a", "--watch", "1"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    while text.matches("CONTAINER ID").count() < 2 {
        assert!(
            std::io::BufRead::read_line(&mut output, &mut text).unwrap() > 0,
            "{text}"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(text.contains("some"), "{text}");
}
