//! What no single key can know: combinations that cannot work.

use super::diagnostics::{Diagnostic, Report, did_you_mean};
use super::packages::Choice;
use super::{Board, Profile, ports};

/// Reports every contradiction between settings.
pub(super) fn check(profile: &Profile, report: &Report) {
    ports::check(&profile.ports, report);
    boards(profile, report);
    suites(profile, report);
    accounts(profile, report);
    files(profile, report);
    sources(profile, report);
}

fn boards(profile: &Profile, report: &Report) {
    let Some(board) = profile.boards.iter().find(|board| ***board == Board::Pi5) else { return };
    if !*profile.base.backports {
        let title = format!("a Pi 5 needs the kernel of {}", profile.base.backports_suite());
        let one = Diagnostic::new(title).mark_origin(board.origin(), "for this board");
        let one = one.mark_origin(profile.base.backports.origin(), "backports are switched off here");
        report.add(one.hint(
            "add `backports = true` under `[base]`; the kernel is then taken from there, and nothing else",
        ));
    }
}

fn suites(profile: &Profile, report: &Report) {
    let base = &profile.base;
    let mut known = vec![(base.suite.to_string(), true)];
    known.push((format!("{}-security", *base.suite), *base.security));
    known.push((format!("{}-updates", *base.suite), *base.updates));
    known.push((base.backports_suite(), *base.backports));
    known.extend(profile.sources.iter().map(|source| (source.suite.to_string(), true)));
    for package in &profile.packages {
        let Choice::Suite(suite) = &package.choice else { continue };
        let hint = match known.iter().find(|(name, _)| name == suite) {
            Some((_, true)) => continue,
            Some((name, false)) => {
                let switch = name.rsplit('-').next().unwrap_or_default();
                format!("add `{switch} = true` under `[base]`")
            }
            None => did_you_mean(suite, known.iter().map(|(name, _)| name.as_str()))
                .unwrap_or_else(|| format!("the suites are {}", joined(&known))),
        };
        let one = Diagnostic::new(format!("no source has the suite `{suite}`"));
        report.add(one.mark_origin(package.origin(), "wanted from there").hint(hint));
    }
}

fn joined(known: &[(String, bool)]) -> String {
    let on: Vec<&str> = known.iter().filter(|(_, on)| *on).map(|(name, _)| name.as_str()).collect();
    on.join(", ")
}

fn accounts(profile: &Profile, report: &Report) {
    for account in &profile.accounts {
        if let Some(group) = profile.groups.iter().find(|group| group.name == account.name) {
            let one = Diagnostic::new(format!(
                "the account `{}` has a group of its own by that name",
                *account.name
            ));
            let one = one
                .mark_origin(group.name.origin(), "made again here")
                .mark_origin(account.name.origin(), "the account");
            report.add(one.hint("take the group out, or give it another name"));
        }
        if *account.locked
            && !*account.system
            && profile.ssh.as_ref().is_some_and(|ssh| ssh.user == account.name)
        {
            let one = Diagnostic::new(format!("`{}` is to log in over SSH, but is locked", *account.name));
            let one = one.mark_origin(account.locked.origin(), "locked here");
            let one = match &profile.ssh {
                Some(ssh) => one.mark_origin(ssh.user.origin(), "logs in here"),
                None => one,
            };
            report.add(one);
        }
    }
    if let Some(ssh) = &profile.ssh
        && let Some(account) = profile.accounts.iter().find(|account| account.name == ssh.user)
        && *account.system
    {
        let one = Diagnostic::new(format!("`{}` is to log in over SSH, but is for a service", *account.name));
        let one = one.mark_origin(account.system.origin(), "a system account");
        report.add(one.mark_origin(ssh.user.origin(), "logs in here"));
    }
}

fn files(profile: &Profile, report: &Report) {
    for (index, file) in profile.files.iter().enumerate() {
        if let Some(other) = profile.files[..index].iter().find(|other| other.path == file.path) {
            let one = Diagnostic::new(format!("{} is written twice", *file.path));
            report.add(
                one.mark_origin(file.path.origin(), "again here")
                    .mark_origin(other.path.origin(), "first here"),
            );
        }
    }
}

/// A package may come from one extra source; two would leave the choice to chance.
fn sources(profile: &Profile, report: &Report) {
    for (index, source) in profile.sources.iter().enumerate() {
        for package in &source.packages {
            let other = profile.sources[..index]
                .iter()
                .find_map(|other| other.packages.iter().find(|one| *one == package).map(|one| (other, one)));
            if let Some((other, one)) = other {
                let title = format!(
                    "`{}` may come from two sources, `{}` and `{}`",
                    **package, *other.name, *source.name
                );
                let diagnostic = Diagnostic::new(title).mark_origin(package.origin(), "");
                report.add(diagnostic.mark_origin(one.origin(), ""));
            }
        }
    }
}
