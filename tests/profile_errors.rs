//! Every way to get a profile wrong that we thought of, and what hardtack says about it, word for word.
//!
//! `tests/profile_errors/NAME.toml` is the profile, `NAME.txt` beside it the expected text; `beside/` holds the files
//! that some of them name.

use hardtack::profile::Profile;
use std::fs;
use std::path::Path;

/// The names of the fixtures: every `.toml` in the directory.
fn fixtures() -> Vec<String> {
    let names = fs::read_dir("tests/profile_errors").unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names
        .filter_map(|name| name.to_str().and_then(|name| name.strip_suffix(".toml")).map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[test]
fn every_wrong_profile_gets_the_words_that_were_reviewed() {
    let mut wrong = Vec::new();
    let names = fixtures();
    assert!(names.len() >= 25, "only {} fixtures were found", names.len());
    for name in names {
        let found = match Profile::load(&format!("tests/profile_errors/{name}.toml")) {
            Ok(_) => "no error\n".to_owned(),
            Err(found) => format!("{}\n", found.render(false)),
        };
        let expected = fs::read_to_string(format!("tests/profile_errors/{name}.txt")).unwrap_or_default();
        if found != expected {
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile_errors");
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(format!("{name}.txt")), &found).unwrap();
            wrong.push(format!(
                "--- {name}, expected:\n{expected}\n--- {name}, found (also in {directory:?}):\n{found}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the texts above are worth: each has a place in a file, and none is shown twice.
#[test]
fn every_finding_has_a_line_and_is_said_once() {
    for name in fixtures() {
        let found = Profile::load(&format!("tests/profile_errors/{name}.toml")).unwrap_err();
        let text = found.render(false);
        let paragraphs: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(paragraphs.len(), found.iter().count(), "{name}");
        for (index, paragraph) in paragraphs.iter().enumerate() {
            assert!(paragraph.contains("--> ") && paragraph.contains('^'), "{name}: no place:\n{paragraph}");
            assert!(!paragraphs[..index].contains(paragraph), "{name}: said twice:\n{paragraph}");
        }
    }
}

#[test]
fn a_name_that_no_profile_has_is_corrected() {
    let found = Profile::load("minmal").unwrap_err().to_string();
    assert!(
        found.contains("no profile is called `minmal`") && found.contains("did you mean `minimal`?"),
        "{found}"
    );
    let found = Profile::load("./nowhere.toml").unwrap_err().to_string();
    assert!(found.contains("cannot read ./nowhere.toml"), "{found}");
}
