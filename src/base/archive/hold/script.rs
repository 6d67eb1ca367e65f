//! Just enough shell to leave out what a maintainer script cannot reach when it is called as `preinst install`.

use std::collections::BTreeMap;

/// The lines of a script that a first installation may run, trimmed: not comments, not the arms of `case "$1"` for other
/// actions, not what stands behind an `if` about upgrades, not functions that nothing of this calls.
pub(super) fn reached(script: &str) -> Vec<&str> {
    let (main, functions) = split(script);
    let mut reached = may_run(&main);
    let mut left: BTreeMap<&str, Vec<&str>> = functions;
    loop {
        let mentions = |name: &str| {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            reached.iter().any(|line| line.split(|c| !is_word(c)).any(|word| word == name))
        };
        let called: Vec<&str> = left.keys().copied().filter(|name| mentions(name)).collect();
        if called.is_empty() {
            return reached;
        }
        for name in called {
            let body = left.remove(name).unwrap_or_default();
            reached.extend(may_run(&body));
        }
    }
}

/// The script without its functions, and those, as far as they are written `name() {` … `}` from the first column.
fn split(script: &str) -> (Vec<&str>, BTreeMap<&str, Vec<&str>>) {
    let (mut main, mut functions): (Vec<&str>, BTreeMap<&str, Vec<&str>>) = Default::default();
    let mut inside: Option<&str> = None;
    for line in script.lines() {
        let head = line.trim_ascii_end().strip_suffix('{').map(str::trim_ascii_end);
        let name = head.and_then(|head| head.strip_suffix("()")).map(str::trim_ascii_end);
        match (inside, name) {
            (None, Some(name)) if !name.is_empty() && !line.starts_with([' ', '\t']) => {
                inside = Some(name);
                functions.entry(name).or_default();
            }
            (Some(_), _) if line.trim_ascii_end() == "}" => inside = None,
            (Some(name), _) => functions.entry(name).or_default().push(line),
            (None, _) => main.push(line),
        }
    }
    (main, functions)
}

fn may_run<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut reached = Vec::new();
    // What encloses the line: for each `if` and `case` whether it is passed over.
    let mut blocks: Vec<Block> = Vec::new();
    for line in lines.iter().map(|line| line.trim_ascii()).filter(|line| !line.starts_with('#')) {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        let one_line = line.ends_with("fi") || line.ends_with("esac");
        match first {
            "if" if !one_line => blocks.push(Block { skipped: is_upgrade_only(line), case: false }),
            "else" | "elif" => {
                if let Some(block) = blocks.last_mut() {
                    block.skipped = first == "elif" && is_upgrade_only(line);
                }
            }
            "case" if !one_line => {
                blocks.push(Block { skipped: false, case: line.contains("$1") || line.contains("${1") })
            }
            "fi" | "fi;" | "esac" | "esac;" => {
                blocks.pop();
            }
            _ => {}
        }
        if let Some(block) = blocks.last_mut().filter(|block| block.case && first != "case") {
            if let Some(labels) = arm(line) {
                block.skipped = !labels.split('|').any(|label| matches!(label.trim_ascii(), "install" | "*"));
            }
            if line.ends_with(";;") {
                if !blocks.iter().any(|block| block.skipped) {
                    reached.push(line);
                }
                if let Some(block) = blocks.last_mut() {
                    block.skipped = false;
                }
                continue;
            }
        }
        if !blocks.iter().any(|block| block.skipped) {
            reached.push(line);
        }
    }
    reached
}

struct Block {
    skipped: bool,
    case: bool,
}

/// The labels of an arm of a `case`, when the line begins one.
fn arm(line: &str) -> Option<&str> {
    let (labels, _) = line.strip_prefix('(').unwrap_or(line).split_once(')')?;
    labels.chars().all(|c| c.is_ascii_alphanumeric() || " |*-".contains(c)).then_some(labels)
}

/// `if [ "$1" = upgrade ]`: a condition that holds at upgrades only. One that names `install`, or has an alternative
/// or a negation in it, may be anything.
fn is_upgrade_only(line: &str) -> bool {
    let asks = line.contains("= upgrade") || line.contains("= \"upgrade\"") || line.contains("-n \"$2\"");
    asks && !["install", "||", " -o ", "!"].iter().any(|other| line.replace("abort-", "").contains(other))
        || line.contains("-n \"$2\"") && line.contains(" ] && ") && !line.contains("||")
}

#[cfg(test)]
mod tests {
    use super::reached;

    #[test]
    fn what_only_upgrades_run_is_left_out() {
        let script = r#"
set -e
# rm comment
old() {
  rm function
}
used() {
  rm used
}
case "$1" in
  upgrade)
    rm upgrade
    old
    ;;
  (install|abort-upgrade)
    rm install; used
  ;;
  *) rm other ;;
esac
if [ "$1" = upgrade ] && dpkg --compare-versions "$2" lt 1; then
  if true; then
    rm nested
  fi
  rm condition
else
  rm else
fi
if [ "$1" = upgrade ] || [ "$1" = install ]; then
  rm both
fi
if [ "$1" = "install" ] && [ -n "$2" ]; then
  rm configured
fi
rm main
"#;
        let lines = reached(script);
        let removed: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once("rm ")?.1)).collect();
        assert_eq!(removed, ["install; used", "other ;;", "else", "both", "main", "used"]);
    }
}
