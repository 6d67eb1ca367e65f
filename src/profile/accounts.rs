//! Accounts and groups. A profile never holds a password: every account is made without one, and the device or its
//! owner gives it one.

use super::diagnostics::{Diagnostic, Report};
use super::ownership::check_account_name;
use super::section::Section;
use super::source::Sourced;

/// `[accounts.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: Sourced<String>,
    /// Groups besides its own, which has its name.
    pub groups: Vec<Sourced<String>>,
    /// Login shell: an absolute path in the image.
    pub shell: Sourced<String>,
    /// Home directory: an absolute path in the image. Made for people, not for system accounts.
    pub home: Sourced<String>,
    /// Whether it is for a service: a uid below 1000.
    pub system: Sourced<bool>,
    /// Whether nobody can log in to it, not with a key either.
    pub locked: Sourced<bool>,
}

/// `[groups.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: Sourced<String>,
    /// Whether it is for a service: a gid below 1000.
    pub system: Sourced<bool>,
}

impl Account {
    /// An account for a person, as `[accounts.NAME]` without a key makes it.
    pub(super) fn person(name: Sourced<String>) -> Self {
        let home = Sourced::default_value(format!("/home/{}", *name));
        Self {
            name,
            groups: Vec::new(),
            shell: Sourced::default_value("/bin/bash".into()),
            home,
            system: Sourced::default_value(false),
            locked: Sourced::default_value(false),
        }
    }
}

const PASSWORDS: [&str; 10] = [
    "password",
    "passwd",
    "pass",
    "pwd",
    "hash",
    "password_hash",
    "hashed_password",
    "hashed_passwd",
    "plain_text_passwd",
    "secret",
];

/// Names that would be a known way in, or are Debian's own.
const REFUSED: [(&str, &str); 7] = [
    ("root", "root is always there and always locked; log in as yourself and use `sudo`"),
    ("pi", "it is the first name that everybody tries; take another"),
    ("ubuntu", "it is a well-known default account; take another"),
    ("debian", "it is a well-known default account; take another"),
    ("dietpi", "it is a well-known default account; take another"),
    ("umbrel", "it is a well-known default account; take another"),
    ("nobody", "it is Debian's own"),
];

/// Reads `[accounts]`.
pub(super) fn read(document: &mut Section<'_>) -> Vec<Account> {
    document
        .named("accounts")
        .into_iter()
        .map(|(name, mut section)| read_account(name, &mut section))
        .collect()
}

fn read_account(name: Sourced<String>, section: &mut Section<'_>) -> Account {
    let report = section.report();
    check_new_name(&name, "an account", report);
    section.refuse(
        &PASSWORDS,
        "a profile never holds a password, nor its hash",
        "the account is made without one; give it an SSH key with `[ssh]`, or a password on the device",
    );
    let system = section.flag("system").unwrap_or(Sourced::default_value(false));
    let locked = section.flag("locked").unwrap_or(system.with(*system));
    let plain = Account::person(name.clone());
    let groups = section.list("groups", |text| check_account_name(text).map(|()| text.to_owned()));
    let nologin = *system || *locked;
    let shell = section.parsed("shell", read_absolute).unwrap_or(if nologin {
        Sourced::default_value("/usr/sbin/nologin".into())
    } else {
        plain.shell
    });
    let home = section.parsed("home", read_absolute);
    let home =
        home.unwrap_or(if *system { Sourced::default_value("/nonexistent".into()) } else { plain.home });
    Account { name, groups, shell, home, system, locked }
}

/// Reads `[groups]`.
pub(super) fn read_groups(document: &mut Section<'_>) -> Vec<Group> {
    let read = |(name, mut section): (Sourced<String>, Section<'_>)| {
        check_new_name(&name, "a group", section.report());
        Group { name, system: section.flag("system").unwrap_or(Sourced::default_value(true)) }
    };
    document.named("groups").into_iter().map(read).collect()
}

fn check_new_name(name: &Sourced<String>, what: &str, report: &Report) {
    if let Err(problem) = check_account_name(name) {
        report.add(Diagnostic::new(format!("bad name of {what}")).mark_origin(name.origin(), problem));
    }
    if what == "an account"
        && let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name.as_str())
    {
        let one = Diagnostic::new(format!("a profile makes no account called `{}`", **name));
        report.add(one.mark_origin(name.origin(), "").hint(*reason));
    }
}

/// An absolute path for `/etc/passwd`: no colon, no control character, no `..`.
fn read_absolute(text: &str) -> Result<String, String> {
    super::ownership::read_image_path(text)?;
    match text.contains(':') {
        true => Err("a path in /etc/passwd cannot hold `:`".into()),
        false => Ok(text.to_owned()),
    }
}
