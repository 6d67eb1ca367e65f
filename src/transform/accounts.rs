//! Accounts and groups: lines of `/etc/passwd`, `/etc/group` and their shadows (passwd(5), shadow(5), gshadow(5)).
//!
//! No account made here has a password: its shadow field is `!`, which no password matches but a key may pass, or `!*`
//! where nobody is to log in at all (shadow(5)). A hash drawn for one device is put there by others.

use crate::meta::{Meta, Timestamp};
use crate::tree::{Kind, Tree, TreeError, TreePath};
use std::collections::{BTreeMap, BTreeSet};

/// A group to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGroup {
    /// Its name.
    pub name: String,
    /// A fixed number, or the first free one.
    pub gid: Option<u32>,
    /// Numbers from the system's range (100–999) rather than people's (1000–59999), Debian policy 9.2.2.
    pub system: bool,
}

/// An account to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// Its name; a group of the same name is its primary group.
    pub name: String,
    /// A fixed number, or the first free one.
    pub uid: Option<u32>,
    /// Numbers from the system's range rather than people's.
    pub system: bool,
    /// The comment field.
    pub comment: String,
    /// Home directory; made, with `/etc/skel` in it, unless the account is a system one.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// Whether nobody can log in to it, not with a key either.
    pub locked: bool,
    /// Further groups; they must exist.
    pub groups: Vec<String>,
    /// Keys for `~/.ssh/authorized_keys`.
    pub authorized_keys: Vec<String>,
}

/// Why an account or group could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The database is not what it should be.
    #[error("/etc/{file} line {line}: expected {expected} fields, found {found}")]
    Line {
        /// Which file.
        file: &'static str,
        /// Which line, from 1.
        line: usize,
        /// Fields the format has.
        expected: usize,
        /// Fields on the line.
        found: usize,
    },
    /// A file of the database is not text, or too long.
    #[error("/etc/{file} is not a text of at most 1 MiB")]
    NotText {
        /// Which file.
        file: &'static str,
    },
    /// A membership in nothing.
    #[error("account `{account}` is to be in group `{group}`, which does not exist")]
    NoGroup {
        /// Who.
        account: String,
        /// In what.
        group: String,
    },
    /// A number is taken.
    #[error("`{name}` asks for id {id}, which belongs to `{owner}`")]
    Taken {
        /// Who asks.
        name: String,
        /// For what.
        id: u32,
        /// Whose it is.
        owner: String,
    },
    /// The range is full.
    #[error("no free id for `{0}`")]
    Full(String),
    /// The account exists with another number.
    #[error("account `{name}` exists with id {found}, the profile asks for {wanted}")]
    Exists {
        /// Who.
        name: String,
        /// Its number.
        found: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// The tree could not be changed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file could not be read.
    #[error("/etc/{file} could not be read")]
    Io {
        /// Which file.
        file: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Makes groups, then accounts, and locks root: whoever administers the device does it through sudo. What exists under the same name is kept and completed, so that a package's own account
/// may be given more groups.
pub fn add(
    tree: &mut Tree,
    groups: &[NewGroup],
    accounts: &[NewAccount],
    now: Timestamp,
) -> Result<(), AccountError> {
    let mut database = Database::read(tree)?;
    database.lock_root();
    for group in groups {
        database.group(group)?;
    }
    for account in accounts {
        let (uid, gid) = database.account(account, now)?;
        if !account.system {
            make_home(tree, account, uid, gid, now)?;
        }
    }
    database.write(tree, now)
}

const FILES: [(&str, usize, u16); 4] =
    [("passwd", 7, 0o644), ("group", 4, 0o644), ("shadow", 9, 0o640), ("gshadow", 4, 0o640)];

/// The four files, as fields.
struct Database {
    files: [Vec<Vec<String>>; 4],
}

impl Database {
    fn read(tree: &Tree) -> Result<Self, AccountError> {
        let mut files: [Vec<Vec<String>>; 4] = Default::default();
        for ((file, fields, _), lines) in FILES.into_iter().zip(&mut files) {
            let content = match tree.file(&etc(file)) {
                Ok(content) => content,
                // gshadow is optional (shadow-utils' `grpconv` makes it); without it there is none to keep in step.
                Err(TreeError::Missing(_)) if file == "gshadow" => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = content.read_to_vec(1 << 20).map_err(|source| AccountError::Io { file, source })?;
            let text = String::from_utf8(bytes).map_err(|_| AccountError::NotText { file })?;
            for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
                let parts: Vec<String> = line.split(':').map(str::to_owned).collect();
                if parts.len() != fields {
                    let found = parts.len();
                    return Err(AccountError::Line { file, line: index + 1, expected: fields, found });
                }
                lines.push(parts);
            }
        }
        Ok(Self { files })
    }

    fn write(&self, tree: &mut Tree, now: Timestamp) -> Result<(), AccountError> {
        let shadow = self.id_of(1, "shadow").unwrap_or(0);
        for ((file, _, mode), lines) in FILES.into_iter().zip(&self.files) {
            if lines.is_empty() {
                continue;
            }
            let text: String = lines.iter().map(|line| line.join(":") + "\n").collect();
            let mut meta = Meta::root(mode, now);
            // Debian's base-passwd: the shadows are root:shadow 0640.
            meta.gid = if mode == 0o640 { shadow } else { 0 };
            tree.put(&etc(file), meta, Kind::File(crate::content::Content::inline(text)))?;
        }
        Ok(())
    }

    fn lock_root(&mut self) {
        for line in self.files[2].iter_mut().filter(|line| line[0] == "root") {
            line[1] = "!*".into();
        }
    }

    fn group(&mut self, group: &NewGroup) -> Result<u32, AccountError> {
        if let Some(gid) = self.id_of(1, &group.name) {
            return match group.gid {
                Some(wanted) if wanted != gid => {
                    Err(AccountError::Exists { name: group.name.clone(), found: gid, wanted })
                }
                _ => Ok(gid),
            };
        }
        let gid = self.free(1, &group.name, group.gid, group.system)?;
        self.files[1].push(vec![group.name.clone(), "x".into(), gid.to_string(), String::new()]);
        if !self.files[3].is_empty() {
            self.files[3].push(vec![group.name.clone(), "!".into(), String::new(), String::new()]);
        }
        Ok(gid)
    }

    fn account(&mut self, account: &NewAccount, now: Timestamp) -> Result<(u32, u32), AccountError> {
        let existing = self.id_of(0, &account.name);
        let uid = match (existing, account.uid) {
            (Some(found), Some(wanted)) if found != wanted => {
                return Err(AccountError::Exists { name: account.name.clone(), found, wanted });
            }
            (Some(found), _) => found,
            (None, wanted) => self.free(0, &account.name, wanted, account.system)?,
        };
        let gid = match existing {
            Some(_) => self.line(0, &account.name).and_then(|line| line[3].parse().ok()).unwrap_or(uid),
            None => {
                let same = self.owner(1, uid).is_none().then_some(uid);
                self.group(&NewGroup { name: account.name.clone(), gid: same, system: account.system })?
            }
        };
        if existing.is_none() {
            self.files[0].push(vec![
                account.name.clone(),
                "x".into(),
                uid.to_string(),
                gid.to_string(),
                account.comment.clone(),
                account.home.clone(),
                account.shell.clone(),
            ]);
            let days = now.seconds.div_euclid(86_400).to_string();
            let aging: &[&str] =
                if account.system { &["", "", "", "", "", ""] } else { &["0", "99999", "7", "", "", ""] };
            let password = if account.locked || account.system { "!*" } else { "!" };
            let mut shadow = vec![account.name.clone(), password.into(), days];
            shadow.extend(aging.iter().map(|field| (*field).to_owned()));
            self.files[2].push(shadow);
        }
        for group in &account.groups {
            for file in [1, 3] {
                match self.files[file].iter_mut().find(|line| line[0] == *group) {
                    Some(line) => {
                        let mut members: Vec<&str> =
                            line[3].split(',').filter(|name| !name.is_empty()).collect();
                        if !members.contains(&account.name.as_str()) {
                            members.push(&account.name);
                        }
                        line[3] = members.join(",");
                    }
                    None if file == 1 => {
                        let (account, group) = (account.name.clone(), group.clone());
                        return Err(AccountError::NoGroup { account, group });
                    }
                    None => {}
                }
            }
        }
        Ok((uid, gid))
    }

    fn line(&self, file: usize, name: &str) -> Option<&Vec<String>> {
        self.files[file].iter().find(|line| line[0] == name)
    }

    fn id_of(&self, file: usize, name: &str) -> Option<u32> {
        self.line(file, name)?[2].parse().ok()
    }

    fn owner(&self, file: usize, id: u32) -> Option<&str> {
        self.files[file].iter().find(|line| line[2].parse() == Ok(id)).map(|line| line[0].as_str())
    }

    fn free(&self, file: usize, name: &str, wanted: Option<u32>, system: bool) -> Result<u32, AccountError> {
        if let Some(id) = wanted {
            return match self.owner(file, id) {
                Some(owner) => Err(AccountError::Taken { name: name.into(), id, owner: owner.into() }),
                None => Ok(id),
            };
        }
        // A user and its group share a number where they can, so a number free in one file only is passed over.
        let taken: BTreeSet<u32> =
            self.files[..2].iter().flatten().filter_map(|line| line[2].parse().ok()).collect();
        let range = if system { 100..=999 } else { 1000..=59_999 };
        range.into_iter().find(|id| !taken.contains(id)).ok_or_else(|| AccountError::Full(name.into()))
    }
}

fn etc(file: &str) -> TreePath {
    TreePath::new(format!("etc/{file}")).unwrap_or_default()
}

fn make_home(
    tree: &mut Tree,
    account: &NewAccount,
    uid: u32,
    gid: u32,
    now: Timestamp,
) -> Result<(), AccountError> {
    let home = TreePath::new(&account.home).map_err(TreeError::from)?;
    let own = |mode: u16| Meta { uid, gid, ..Meta::root(mode, now) };
    let directory = || Kind::Directory(BTreeMap::new());
    if tree.get(&tree.resolve(&home)?).is_none() {
        tree.put(&home, own(0o700), directory())?;
        let skeleton = TreePath::new("etc/skel").map_err(TreeError::from)?;
        let copies: Vec<_> = tree
            .walk()
            .filter(|(path, _)| *path != skeleton && path.starts_with(&skeleton))
            .map(|(path, id)| (path.as_bytes()[skeleton.as_bytes().len()..].to_vec(), tree.node(id).clone()))
            .collect();
        for (below, node) in copies {
            let to = home.join(below.strip_prefix(b"/").unwrap_or(&below)).map_err(TreeError::from)?;
            let kind = if node.kind.is_directory() { directory() } else { node.kind };
            tree.put(&to, own(node.meta.mode), kind)?;
        }
    }
    if !account.authorized_keys.is_empty() {
        let ssh = home.join(b".ssh").map_err(TreeError::from)?;
        tree.put(&ssh, own(0o700), directory())?;
        let keys: String = account.authorized_keys.iter().map(|key| format!("{}\n", key.trim())).collect();
        let file = ssh.join(b"authorized_keys").map_err(TreeError::from)?;
        tree.put(&file, own(0o600), Kind::File(crate::content::Content::inline(keys)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::seconds(86_400 * 20_000 + 5);

    fn tree() -> Tree {
        let mut tree = Tree::new(NOW);
        for (at, text) in [
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/bash\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n",
            ),
            ("etc/group", "root:x:0:\nshadow:x:42:\nsudo:x:27:\nssl-cert:x:100:\n"),
            ("etc/shadow", "root:*:20000:0:99999:7:::\n_apt:!:20000::::::\n"),
            ("etc/gshadow", "root:*::\nshadow:*::\nsudo:*::\nssl-cert:!::\n"),
            ("etc/skel/.profile", "umask 027\n"),
        ] {
            tree.put_file(&TreePath::new(at).unwrap(), 0o644, NOW, text).unwrap();
        }
        tree
    }

    fn text(tree: &Tree, at: &str) -> String {
        String::from_utf8(tree.file(&TreePath::new(at).unwrap()).unwrap().read_to_vec(9999).unwrap()).unwrap()
    }

    fn account(name: &str) -> NewAccount {
        NewAccount {
            name: name.into(),
            uid: None,
            system: false,
            comment: String::new(),
            home: format!("/home/{name}"),
            shell: "/bin/bash".into(),
            locked: false,
            groups: vec!["sudo".into()],
            authorized_keys: vec!["ssh-ed25519 AAAA me".into()],
        }
    }

    #[test]
    fn an_account_has_a_home_a_key_and_no_password() {
        let mut tree = tree();
        add(&mut tree, &[], &[account("ada")], NOW).unwrap();
        assert!(text(&tree, "etc/passwd").ends_with("ada:x:1000:1000::/home/ada:/bin/bash\n"));
        assert!(text(&tree, "etc/shadow").ends_with("ada:!:20000:0:99999:7:::\n"));
        assert!(text(&tree, "etc/group").contains("sudo:x:27:ada\n"));
        assert!(text(&tree, "etc/gshadow").contains("sudo:*::ada\n"));
        assert_eq!(text(&tree, "home/ada/.profile"), "umask 027\n");
        assert_eq!(text(&tree, "home/ada/.ssh/authorized_keys"), "ssh-ed25519 AAAA me\n");
        let meta = |at: &str| tree.get(&TreePath::new(at).unwrap()).unwrap().meta.clone();
        assert_eq!((meta("home/ada").mode, meta("home/ada").uid), (0o700, 1000));
        assert_eq!(meta("home/ada/.ssh/authorized_keys").mode, 0o600);
        assert_eq!((meta("etc/shadow").mode, meta("etc/shadow").gid), (0o640, 42));
    }

    #[test]
    fn making_it_twice_changes_nothing() {
        let mut tree = tree();
        let group = NewGroup { name: "share".into(), gid: None, system: true };
        add(&mut tree, std::slice::from_ref(&group), &[account("ada")], NOW).unwrap();
        let before = crate::tree::dump::dump(&tree).unwrap();
        assert!(text(&tree, "etc/group").contains("share:x:101:\n"), "100 belongs to ssl-cert");
        add(&mut tree, &[group], &[account("ada")], NOW).unwrap();
        assert_eq!(crate::tree::dump::dump(&tree).unwrap(), before);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let fails = |account: NewAccount, says: &str| {
            let error = add(&mut tree(), &[], &[account], NOW).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        };
        fails(NewAccount { groups: vec!["wheel".into()], ..account("ada") }, "`wheel`");
        fails(NewAccount { uid: Some(42), ..account("ada") }, "belongs to `_apt`");
        fails(NewAccount { uid: Some(7), ..account("root") }, "exists with id 0");
        fails(NewAccount { home: "/home/../x".into(), ..account("ada") }, "`..`");
        let mut broken = tree();
        broken.put_file(&TreePath::new("etc/shadow").unwrap(), 0o640, NOW, "root:*\n").unwrap();
        assert!(matches!(
            add(&mut broken, &[], &[account("ada")], NOW),
            Err(AccountError::Line { file: "shadow", line: 1, expected: 9, found: 2 })
        ));
    }
}
