//! What a device calls itself and speaks: host name, time zone, locale, keyboard. And when it may restart.

use super::diagnostics::Diagnostic;
use super::section::Section;
use super::source::Sourced;
use std::fmt;

/// `[system]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The host name, or the pattern for one.
    pub hostname: Sourced<Hostname>,
    /// A name from the IANA database: `Europe/Paris`.
    pub timezone: Sourced<String>,
    /// `LANG`: `C.UTF-8`, or `de_DE.UTF-8`, which is generated.
    pub locale: Sourced<String>,
    /// The keyboard of a console.
    pub keyboard: Sourced<Keyboard>,
}

impl System {
    /// Reads `[system]`. Without a host name, a device is called after its profile and itself.
    pub(super) fn read(section: &mut Section<'_>, profile: &str) -> Self {
        let default = |pattern: &str| Sourced::default_value(Hostname { pattern: pattern.to_owned() });
        let own = format!("{}-%m", profile.get(..54).unwrap_or(profile).trim_end_matches('-'));
        Self {
            hostname: section.parsed("hostname", read_hostname).unwrap_or_else(|| default(&own)),
            timezone: section
                .parsed("timezone", read_timezone)
                .unwrap_or(Sourced::default_value("Etc/UTC".into())),
            locale: section.parsed("locale", read_locale).unwrap_or(Sourced::default_value("C.UTF-8".into())),
            keyboard: section
                .parsed("keyboard", read_keyboard)
                .unwrap_or(Sourced::default_value(Keyboard { layout: "us".into(), variant: String::new() })),
        }
    }
}

/// A host name in which `%m` stands for eight hexadecimal digits that each device draws from its own machine-id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname {
    pattern: String,
}

impl Hostname {
    /// As the profile has it: `office`, or `office-%m`.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The name, if it is the same on every device.
    pub fn fixed(&self) -> Option<&str> {
        (!self.pattern.contains("%m")).then_some(self.pattern.as_str())
    }

    /// The name of the device whose digits are `digits`.
    pub fn of_device(&self, digits: &str) -> String {
        self.pattern.replace("%m", digits)
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

/// One label of RFC 1123, because it becomes `NAME.local` and the name in certificates.
fn read_hostname(text: &str) -> Result<Hostname, String> {
    let shown = text.replacen("%m", "00000000", 1);
    if shown.contains('%') {
        return Err("must hold at most one `%`, as `%m`".into());
    }
    if shown.contains('.') {
        return Err("must be one label, without a domain".into());
    }
    let fine = shown.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if shown.is_empty() || shown.len() > 63 || !fine || shown.starts_with('-') || shown.ends_with('-') {
        return Err("must be lower-case letters, digits and `-` inside, at most 63 (RFC 1123)".into());
    }
    if shown == "localhost" {
        return Err("every machine is called that".into());
    }
    Ok(Hostname { pattern: text.to_owned() })
}

/// The form of the names in the IANA database; whether there is such a zone, the image's `tzdata` decides.
fn read_timezone(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        part.bytes().next().is_some_and(|c| c.is_ascii_alphabetic())
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"_+-".contains(&c))
    };
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() <= 3 && parts.iter().all(|one| part(one)) && text.len() <= 64 {
        Ok(text.to_owned())
    } else {
        Err("must be a time zone, such as `Europe/Paris`".into())
    }
}

/// `C.UTF-8` or `xx_YY.UTF-8`, perhaps with `@modifier`.
fn read_locale(text: &str) -> Result<String, String> {
    if text == "C.UTF-8" {
        return Ok(text.to_owned());
    }
    let (name, modifier) = text.split_once('@').unwrap_or((text, "x"));
    let region = name.strip_suffix(".UTF-8").and_then(|name| name.split_once('_'));
    let lower = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_lowercase());
    let fine = region.is_some_and(|(language, region)| {
        (2..=3).contains(&language.len())
            && lower(language)
            && (2..=3).contains(&region.len())
            && region.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    });
    match fine && lower(modifier) {
        true => Ok(text.to_owned()),
        false if name.contains('_') && !name.contains('.') => {
            Err(format!("must be a UTF-8 locale\ndid you mean `{name}.UTF-8`?"))
        }
        false => Err("must be `C.UTF-8`, or a locale such as `de_DE.UTF-8`".into()),
    }
}

/// A keyboard layout as X and `keyboard-configuration` name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyboard {
    /// `us`, `de`, `ch`.
    pub layout: String,
    /// `nodeadkeys`, `fr`; may be empty.
    pub variant: String,
}

/// `de`, or `de(nodeadkeys)`.
impl fmt::Display for Keyboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variant.as_str() {
            "" => f.write_str(&self.layout),
            variant => write!(f, "{}({variant})", self.layout),
        }
    }
}

fn read_keyboard(text: &str) -> Result<Keyboard, String> {
    let (layout, variant) = match text.split_once('(') {
        Some((layout, rest)) => (layout, rest.strip_suffix(')').unwrap_or("?")),
        None => (text, ""),
    };
    let word = |text: &str| text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    if layout.is_empty() || layout.len() > 32 || variant.len() > 32 || !word(layout) || !word(variant) {
        return Err("must be a layout such as `us`, or a layout and a variant such as `ch(fr)`".into());
    }
    Ok(Keyboard { layout: layout.to_owned(), variant: variant.to_owned() })
}

/// `[updates]`: security updates always install themselves; this says when the device may restart for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updates {
    /// Whether it restarts by itself when an update needs it.
    pub reboot: Sourced<bool>,
    /// When it does, in the device's time zone.
    pub window: Sourced<Window>,
}

impl Updates {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let window = section.parsed("window", read_window);
        let reboot = section.flag("reboot");
        if let (Some(reboot), Some(window)) = (&reboot, &window)
            && !**reboot
            && reboot
                .origin()
                .place()
                .zip(window.origin().place())
                .is_some_and(|(a, b)| std::sync::Arc::ptr_eq(a.source(), b.source()))
        {
            let one = Diagnostic::new("a window for a restart that never happens");
            let one = one.mark_origin(window.origin(), "").mark_origin(reboot.origin(), "no restart here");
            section.report().add(one.hint("take one of the two out"));
        }
        Self {
            reboot: reboot.unwrap_or(Sourced::default_value(true)),
            window: window.unwrap_or(Sourced::default_value(Window { from: 150, to: 270 })),
        }
    }
}

/// A time of the day and a later one, in minutes from midnight; it may run past midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First minute.
    pub from: u16,
    /// Minute after the last; smaller than `from` when the window runs past midnight.
    pub to: u16,
}

impl Window {
    /// How many minutes it has.
    pub fn minutes(self) -> u16 {
        (self.to + 1440 - self.from) % 1440
    }
}

/// `02:30-04:30`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, self.to / 60, self.to % 60)
    }
}

fn read_window(text: &str) -> Result<Window, String> {
    let time = |text: &str| {
        let (hours, minutes) = text.split_once(':')?;
        let number = |text: &str, end: u16| {
            let digits = text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit());
            text.parse::<u16>().ok().filter(|number| digits && *number < end)
        };
        Some(number(hours, 24)? * 60 + number(minutes, 60)?)
    };
    let times = text.split_once('-').and_then(|(from, to)| Some((time(from)?, time(to)?)));
    match times {
        // unattended-upgrades needs some minutes to find out that it is time.
        Some((from, to)) if (Window { from, to }).minutes() >= 10 => Ok(Window { from, to }),
        Some(_) => Err("must have at least ten minutes".into()),
        None => Err("must be two times of the day, such as `02:30-04:30`".into()),
    }
}
