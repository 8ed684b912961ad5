//! Dialogues, word for word, with the clock in hand.

use super::*;

struct Terminal {
    session: Session,
    now: Instant,
}

impl Terminal {
    fn new(login: bool, shell: bool) -> Self {
        let now = Instant::now();
        Self { session: Session::new(now, Policy { login, shell }), now }
    }

    fn logged_in() -> Self {
        let mut terminal = Self::new(true, false);
        terminal.send("\roperator\rsecret\r");
        terminal.session.verified(terminal.now, true);
        terminal.actions();
        terminal
    }

    fn send(&mut self, text: &str) -> Vec<Action> {
        self.session.handle_bytes(self.now, text.as_bytes());
        self.actions()
    }

    fn later(&mut self, seconds: f64) -> Vec<Action> {
        self.now += Duration::from_secs_f64(seconds);
        self.session.handle_timeout(self.now);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.session.poll_action()).collect()
    }
}

fn written(actions: &[Action]) -> String {
    let text = |action: &Action| match action {
        Action::Write(text) => text.clone(),
        Action::Echo(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    actions.iter().map(text).collect()
}

#[test]
fn log_in_shows_the_name_but_never_the_password() {
    let mut terminal = Terminal::new(true, false);
    let actions = terminal.send("\roperator\rse cret\x7ft\r");
    assert_eq!(written(&actions), "\nlogin: operator\npassword: \n");
    assert_eq!(actions.last(), Some(&Action::Verify("se cret".into())));
    terminal.session.verified(terminal.now, true);
    assert_eq!(written(&terminal.actions()), "Welcome. `help` lists the commands.\nkontor> ");
}

#[test]
fn without_a_hash_nobody_logs_in() {
    let mut terminal = Terminal::new(false, true);
    let actions = terminal.send("\roperator\rx\r");
    assert!(written(&actions).starts_with("\nLog-in is disabled"));
    assert!(terminal.session.is_watching() && !actions.iter().any(|a| matches!(a, Action::Verify(_))));
}

#[test]
fn failures_cost_more_and_more_and_typing_ahead_does_not_help() {
    let mut terminal = Terminal::new(true, false);
    terminal.send("\r");
    for (round, pause) in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0].into_iter().enumerate() {
        // A wrong name fails like a wrong password, without a check.
        let name = if round % 2 == 0 { "operator" } else { "root" };
        let actions = terminal.send(&format!("{name}\rguess\r"));
        assert_eq!(actions.contains(&Action::Verify("guess".into())), round % 2 == 0);
        if round % 2 == 0 {
            terminal.session.verified(terminal.now, false);
        }
        assert_eq!(
            terminal.send("operator\rahead\r").iter().filter(|a| matches!(a, Action::Verify(_))).count(),
            0
        );
        assert_eq!(terminal.later(pause - 0.01), [], "round {round}");
        assert_eq!(written(&terminal.later(0.01)), "login: ");
    }
}

#[test]
fn a_forgotten_login_prompt_and_a_forgotten_session_end() {
    let mut terminal = Terminal::new(true, false);
    terminal.send("\r");
    assert_eq!(terminal.later(59.9), []);
    assert_eq!(terminal.later(0.2).last(), Some(&Action::Watch));
    let mut terminal = Terminal::logged_in();
    assert_eq!(terminal.later(599.0), []);
    terminal.send("x");
    assert_eq!(terminal.later(599.0), []);
    let actions = terminal.later(1.0);
    assert!(written(&actions).contains("Logged out after 10 minutes"));
    assert!(terminal.session.is_watching());
}

#[test]
fn commands_run_one_after_the_other_with_a_prompt_after_each() {
    let mut terminal = Terminal::logged_in();
    let actions = terminal.send("status\rlogs netd -n 3\r");
    assert_eq!(actions.last(), Some(&Action::Run(vec!["status".into()], None)));
    terminal.session.finished(terminal.now);
    let actions = terminal.actions();
    assert!(written(&actions).starts_with("kontor> logs netd"));
    let words = ["logs", "netd", "-n", "3"].map(String::from);
    assert_eq!(actions.last(), Some(&Action::Run(words.into(), None)));
    assert_eq!(terminal.send("\x03"), [Action::Interrupt]);
    terminal.session.finished(terminal.now);
    assert_eq!(written(&terminal.actions()), "kontor> ");
    assert_eq!(terminal.later(10_000.0).len(), 2, "idle time counts again after a command");
}

#[test]
fn a_long_command_is_not_idle_time() {
    let mut terminal = Terminal::logged_in();
    terminal.send("status\r");
    assert_eq!(terminal.later(10_000.0), []);
    terminal.session.finished(terminal.now);
    terminal.actions();
    assert_eq!(terminal.later(1.0), []);
}

#[test]
fn a_site_file_is_pasted_whole_whatever_the_line_ends() {
    for end in ["\r", "\n", "\r\n"] {
        let mut terminal = Terminal::logged_in();
        terminal.send("site load\r");
        let body = ["schema = 1", "# ä", "", "[office]", "."].map(|line| format!("{line}{end}")).concat();
        let actions = terminal.send(&body);
        let words = ["site", "load", "-", "--who", "operator"].map(String::from);
        let content = "schema = 1\n# ä\n\n[office]\n".as_bytes().to_vec();
        assert_eq!(
            actions,
            [Action::Write("4 lines read.\n".into()), Action::Run(words.into(), Some(content))]
        );
    }
}

#[test]
fn a_paste_can_be_cancelled_and_has_a_limit() {
    let mut terminal = Terminal::logged_in();
    terminal.send("site load\r");
    assert_eq!(written(&terminal.send("half\r\x03")), "^C\nkontor> ");
    terminal.send("site load\r");
    let text = written(&terminal.send(&"x".repeat(PASTE_MAX + 1)));
    assert_eq!(text, "Too long: a site file has at most 256 KiB. Nothing has changed.\nkontor> ");
}

#[test]
fn a_shell_only_where_the_site_file_allows_it() {
    let mut terminal = Terminal::logged_in();
    assert!(written(&terminal.send("shell\r")).contains("does not allow a shell"));
    terminal.session.set_policy(Policy { login: true, shell: true });
    assert_eq!(terminal.send("shell\r").last(), Some(&Action::Shell));
}

#[test]
fn the_operator_names_no_files_of_root() {
    let mut terminal = Terminal::logged_in();
    for line in [
        "site check /state/secret",
        "site load /dev/ttyS1",
        "site load --who root",
        "site check --why x /etc/shadow",
        "site show --site=/etc/shadow",
        "site show --site /etc/shadow",
        "status --run /tmp",
        "leases --board=/etc/shadow",
    ] {
        let actions = terminal.send(&format!("{line}\r"));
        assert!(!actions.iter().any(|action| matches!(action, Action::Run(..))), "{line}");
        assert!(written(&actions).contains("root-shell"), "{line}: {}", written(&actions));
        assert!(written(&actions).ends_with("kontor> "), "{line}");
    }
    for line in ["status --json", "site --help", "logs netd -n 3", "site history"] {
        let actions = terminal.send(&format!("{line}\r"));
        assert!(matches!(actions.last(), Some(Action::Run(..))), "{line}");
        terminal.session.finished(terminal.now);
        terminal.actions();
    }
    terminal.session.set_policy(Policy { login: true, shell: true });
    let words = ["site", "load", "/tmp/site.toml"].map(String::from);
    assert_eq!(
        terminal.send("site load /tmp/site.toml\r").last(),
        Some(&Action::Run(words.into(), None)),
        "whoever has a root shell may name any file"
    );
}

#[test]
fn a_factory_reset_asks_at_the_terminal() {
    let mut terminal = Terminal::logged_in();
    let words = ["factory-reset", "--wipe-data"].map(String::from);
    assert_eq!(terminal.send("factory-reset --wipe-data\r").last(), Some(&Action::Converse(words.into())));
    terminal.session.finished(terminal.now);
    terminal.actions();
    let refused = written(&terminal.send("factory-reset --state /etc\r"));
    assert!(refused.contains("root-shell"), "{refused}");
}

#[test]
fn a_pasted_site_file_can_be_checked_only() {
    let mut terminal = Terminal::logged_in();
    assert!(written(&terminal.send("site check\r")).contains("Paste the site file"));
    let words = ["site", "check", "-"].map(String::from);
    let content = b"schema = 1\n".to_vec();
    assert_eq!(terminal.send("schema = 1\r.\r").last(), Some(&Action::Run(words.into(), Some(content))));
}

#[test]
fn help_and_logout() {
    let mut terminal = Terminal::logged_in();
    assert!(written(&terminal.send("help\r")).ends_with("kontor> "));
    assert_eq!(terminal.send("logout\r").last(), Some(&Action::Watch));
    let actions = terminal.send("status\r");
    assert_eq!(written(&actions), "\nlogin: ", "nothing runs without a log-in");
}

#[test]
fn quotation_marks_keep_a_name_together() {
    let check = |line: &str, expect: &[&str]| assert_eq!(words(line), expect, "{line}");
    check("  logs  netd ", &["logs", "netd"]);
    check(
        "samba group add \"Branch North\" --x=\"a b\"c",
        &["samba", "group", "add", "Branch North", "--x=a bc"],
    );
    check("a \"\" \"b", &["a", "", "b"]);
    check("", &[]);
}
