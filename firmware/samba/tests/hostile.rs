//! No text that a site file may hold breaks out of its value in `smb.conf`.

use kontor_config::{Board, Site};

const SITE: &str = r#"schema = 1
[office]
name = "@name@"
host-name = "gate"
domain = "office.example"
[[network]]
name = "wan"
zone = "external"
ports = ["port1"]
address = "dhcp"
[[network]]
name = "lan"
zone = "internal"
ports = ["port2"]
address = "192.168.77.1/24"
[samba]
role = "rodc"
realm = "@realm@"
domain = "@domain@"
servers = ["10.1.0.10"]
site = "@site@"
rodc-group = "@group@"
homes = true
[[samba.share]]
name = "@share@"
comment = "@comment@"
read = ["@read@"]
write = ["@write@"]
recycle-bin = true
previous-versions = true
audit = true
encrypt = true
"#;

const HARMLESS: [(&str, &str); 9] = [
    ("@name@", "Office"),
    ("@realm@", "ad.example"),
    ("@domain@", "OFFICE"),
    ("@site@", "North"),
    ("@group@", "Branch"),
    ("@share@", "common"),
    ("@comment@", "Files"),
    ("@read@", "Trainees"),
    ("@write@", "Sales"),
];

/// As TOML writes them in a basic string.
const HOSTILE: [&str; 24] = [
    "a\\npath = /",
    "a\\r[global]",
    "a\\u0000b",
    "a\\u0085b",
    "a\\u2028path = /",
    "%U",
    "a%$(HOME)",
    "a\\\\",
    "a\\\" @\\\"b",
    "a, root",
    "a; path = /",
    "; a",
    "# a",
    "a # b",
    "[global]",
    "a] [b",
    "a = b",
    "@a",
    "+a",
    "&a",
    " a",
    "../a",
    "$(reboot)",
    "`reboot`",
];

/// The rendered file, if the site is accepted with `hostile` in one place.
fn rendered(place: &str, hostile: &str) -> Option<String> {
    let board = "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";
    let board = Board::parse("board.toml", board).expect("a right board");
    let text = HARMLESS.iter().fold(SITE.to_owned(), |text, (key, harmless)| {
        text.replace(key, if *key == place { hostile } else { harmless })
    });
    let site = Site::parse("site.toml", &text, &board).ok()?;
    let samba = site.samba.as_ref().expect("a [samba] table");
    Some(kontor_samba::smb_conf(&site, samba))
}

/// Sections and parameters in order, without the values.
fn outline(text: &str) -> Vec<String> {
    let head = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    text.lines().map(head).collect()
}

/// Quotation marks, what Samba replaces, and the separators outside quotation marks.
fn specials(text: &str) -> (usize, usize, usize) {
    let count = |c| text.matches(c).count();
    let unquoted: String = text.split('"').step_by(2).collect();
    (count('"'), count('%'), unquoted.matches([',', ';', '@']).count())
}

#[test]
fn hostile_texts_are_refused_or_harmless() {
    let harmless = rendered("", "").expect("a right site");
    let mut accepted = 0;
    for (place, _) in HARMLESS {
        for hostile in HOSTILE {
            let Some(text) = rendered(place, hostile) else { continue };
            accepted += 1;
            if place == "@comment@" {
                // Free text: it may look like anything, but stays in its line.
                let others = |text: &str| -> Vec<String> {
                    text.lines().filter(|line| !line.starts_with("\tcomment = ")).map(str::to_owned).collect()
                };
                assert_eq!(others(&text), others(&harmless), "{hostile}");
                assert_eq!(text.matches('%').count(), harmless.matches('%').count(), "{hostile}");
            } else {
                assert_eq!(outline(&text), outline(&harmless), "{place} {hostile}");
                assert_eq!(specials(&text), specials(&harmless), "{place} {hostile}");
            }
            assert_eq!(text.lines().count(), harmless.lines().count(), "{place} {hostile}");
            assert!(!text.contains("\\\n") && !text.contains('\r'), "{place} {hostile}");
        }
    }
    assert!(accepted > 0, "the list must contain what is allowed, too");
}
