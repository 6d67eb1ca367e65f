//! The program from outside: what it prints where, and how it ends.

#![expect(clippy::disallowed_methods, reason = "tests start the program they test")]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program, with an environment that is the same everywhere.
fn hardtack() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
    command.env_clear().env("HOME", "/nonexistent");
    command
}

fn run(arguments: &[&str]) -> Output {
    hardtack().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn profiles_lists_what_is_shipped() {
    let output = run(&["profiles"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].starts_with("dns ") && lines[0].contains("53/tcp lan, 53/udp lan, 67/udp lan"),
        "{text}"
    );
    assert!(lines[1].starts_with("files ") && lines[1].contains("445/tcp lan"), "{text}");
    assert!(lines[2].starts_with("minimal ") && lines[2].contains("opens nothing"), "{text}");
}

#[test]
fn show_names_the_line_behind_each_value() {
    let output = run(&["show", "files"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let text = stdout(&output);
    assert!(text.starts_with("files (minimal → files)\n"), "{text}");
    let line = |word: &str| text.lines().find(|line| line.trim_start().starts_with(word)).unwrap_or_default();
    assert!(line("samba ").contains("shipped:files.toml:"), "{text}");
    assert!(line("nftables ").contains("shipped:minimal.toml:"), "{text}");
    assert!(line("smb ").contains("445/tcp from the local network"), "{text}");
    assert!(line("/srv/files ").contains("root:files 2770"), "{text}");
    assert!(line("nmbd.service ").contains("mask"), "{text}");
    assert!(line("timezone ").ends_with("default"), "{text}");
}

#[test]
fn show_as_json_is_json_with_files_and_lines() {
    let output = run(&["show", "files", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["name"], "files");
    assert_eq!(value["chain"][0]["file"], "shipped:minimal.toml");
    assert_eq!(value["personal"], false);
    let port = &value["ports"][0];
    assert_eq!(
        (&port["first"], &port["protocol"], &port["scope"]),
        (&445.into(), &"tcp".into(), &"lan".into())
    );
    assert_eq!(port["from"]["file"], "shipped:files.toml");
    assert!(port["from"]["line"].as_u64().unwrap() > 1);
    assert_eq!(value["system"]["timezone"], serde_json::json!({ "value": "Etc/UTC", "from": null }));
    let share = value["files"].as_array().unwrap().iter().find(|file| file["path"] == "/srv/files").unwrap();
    assert_eq!(
        (&share["mode"], &share["group"], &share["overlay"]),
        (&"2770".into(), &"files".into(), &"files".into())
    );
}

#[test]
fn shipped_profiles_work_from_any_directory() {
    let directory = tempfile::tempdir().unwrap();
    let output = hardtack().args(["show", "dns"]).current_dir(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), stdout(&run(&["show", "dns"])));
}

#[test]
fn a_wireless_key_is_never_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home.toml");
    let psk = "0123456789abcdef".repeat(4);
    let text =
        format!("extends = 'minimal'\n[network.wlan0]\nssid = 'Home'\ncountry = 'FR'\npsk = '{psk}'\n");
    std::fs::write(&path, text).unwrap();
    for more in [&[][..], &["--json"], &["-vv"]] {
        let output = hardtack().arg("show").arg(&path).args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("Home") && !text.contains(&psk[..16]), "{text}");
    }
}

#[test]
fn a_wrong_profile_is_exit_code_1_on_stderr() {
    let output = run(&["show", "minmal"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    assert_eq!(
        stderr(&output),
        "error: no profile is called `minmal`\n |\n = hint: did you mean `minimal`?\n"
    );
    let output = run(&["show", "tests/profile_errors/ssh-without-keys.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = include_str!("profile_errors/ssh-without-keys.txt");
    assert_eq!(stderr(&output), expected);
}

#[test]
fn a_wrong_command_line_is_exit_code_1_too() {
    for arguments in
        [&["shwo", "files"][..], &["show"], &["show", "files", "--jsn"], &["-q", "-v", "profiles"], &[]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let output = run(&["man", "shwo"]);
    assert_eq!(stderr(&output), "error: there is no command `shwo`\n\nhint: did you mean `show`?\n");
    let output = hardtack().env("SOURCE_DATE_EPOCH", "now").arg("profiles").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: SOURCE_DATE_EPOCH is `now`"), "{}", stderr(&output));
}

#[test]
fn help_is_asked_for_and_goes_to_stdout() {
    for arguments in [&["--help"][..], &["show", "--help"], &["help", "show"], &["--version"]] {
        let output = run(arguments);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{arguments:?}");
        assert!(stdout(&output).contains("hardtack"), "{arguments:?}");
    }
}

#[test]
fn colours_are_for_terminals_or_on_request() {
    let colours = |command: &mut Command| {
        let output = command.output().unwrap();
        stdout(&output).contains('\x1b') || stderr(&output).contains('\x1b')
    };
    assert!(!colours(hardtack().args(["show", "minimal"])), "a pipe gets none");
    assert!(!colours(hardtack().args(["show", "minmal"])), "nor do errors");
    assert!(colours(hardtack().args(["show", "minimal", "--color", "always"])));
    assert!(colours(hardtack().args(["--color", "always", "show", "minmal"])));
    assert!(
        colours(hardtack().env("NO_COLOR", "1").args(["show", "minimal", "--color", "always"])),
        "the flag wins"
    );
    assert!(!colours(hardtack().args(["show", "minimal", "--color", "never"])));
}

/// `script` gives the program a terminal.
#[test]
fn no_color_is_heard_on_a_terminal() {
    let on_terminal = |no_color: &str| {
        let command = format!("{} show minimal", env!("CARGO_BIN_EXE_hardtack"));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).stdin(Stdio::null());
        script.env("NO_COLOR", no_color).env("TERM", "xterm");
        let output = script.output().expect("install bsdutils");
        assert!(output.status.success());
        stdout(&output)
    };
    assert!(on_terminal("").contains('\x1b'), "an empty NO_COLOR means nothing");
    assert!(!on_terminal("1").contains('\x1b'));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = hardtack()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    let mut talk = String::new();
    child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
    assert_eq!((status.code(), talk.as_str()), (Some(0), ""));
}

#[test]
fn an_answer_that_cannot_be_written_is_exit_code_2() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = hardtack().arg("profiles").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: cannot write the answer: "), "{}", stderr(&output));
}

/// bash reads the script without complaint; fish and zsh are not on every machine, so for them it is not empty.
#[test]
fn completions_are_scripts() {
    let output = run(&["completions", "bash"]);
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("hardtack.bash");
    std::fs::write(&script, &output.stdout).unwrap();
    let check = Command::new("bash").arg("-n").arg(&script).output().expect("install bash");
    assert!(check.status.success() && check.stderr.is_empty(), "{}", stderr(&check));
    for shell in ["zsh", "fish"] {
        assert!(stdout(&run(&["completions", shell])).contains("hardtack"), "{shell}");
    }
}

/// man reads the pages without a warning.
#[test]
fn manual_pages_are_manual_pages() {
    for (arguments, name) in [(&["man"][..], "hardtack"), (&["man", "show"], "hardtack-show")] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.1");
        std::fs::write(&page, &output.stdout).unwrap();
        let check = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page).output();
        let check = check.expect("install groff-base");
        assert!(check.status.success() && check.stderr.is_empty(), "{name}: {}", stderr(&check));
        assert!(stdout(&output).contains(&format!(".TH {name} 1")), "{}", stdout(&output));
    }
}

#[test]
fn the_binary_does_not_know_where_it_was_built() {
    let output = run(&["show", "minimal", "--json"]);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).display().to_string();
    assert!(!stdout(&output).contains(&here));
}
