use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::*;

const KEYS: &[Key] = &[
    Key::new("listen", Kind::Address, "127.0.0.1:8080", "Address and port for clients"),
    Key::new("data_dir", Kind::Path, "", "Folder for what lasts"),
    Key::new("dev_login", Kind::Bool, "false", "Log in by mere name"),
    Key::new("shards", Kind::Integer { min: 1, max: 1024 }, "2", "Threads"),
    Key::new(
        "rate_per_second",
        Kind::Number { min: 0.5, max: 1e6 },
        "1",
        "Messages in the long run",
    )
    .hot(),
    Key::new(
        "patience",
        Kind::Duration { min_ms: 10, max_ms: 3_600_000 },
        "5s",
        "How long to wait",
    ),
    Key::new("log", Kind::Choice(&["error", "info", "debug"]), "info", "What is logged").hot(),
    Key::new("name", Kind::Text, "", "What this process is called"),
];
const KAFKA: &[Key] = &[
    Key::new("kafka.brokers", Kind::List, "127.0.0.1:9092", "Brokers to begin with"),
    Key::new("kafka.first", Kind::Endpoint, "localhost:9092", "The first of them"),
    Key::new(
        "mysql.url",
        Kind::Url(&["mysql", "mysqls"]),
        "mysql://u:hunter1@db/im",
        "The database",
    )
    .secret(),
    Key::new(
        "roles",
        Kind::Choices(&["ingest", "rpc", "tasks"]),
        "ingest,rpc,tasks",
        "What it does",
    ),
];

fn table() -> Table {
    Table::new("demo", "a table for tests", &[KEYS, KAFKA]).unwrap()
}

fn load(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Values, Fault> {
    let find = |name: &str| {
        variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).into())
    };
    match table().load(arguments.iter().map(OsString::from), find)? {
        Outcome::Run(values) => Ok(values),
        Outcome::Print(text) => panic!("printed {text}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load_file(text: &str) -> Result<Values, Fault> {
    load(&["--config", file(text).path().to_str().unwrap()], &[])
}

#[test]
fn defaults_hold_when_nobody_says_anything() {
    let values = load(&[], &[]).unwrap();
    assert_eq!(values.address("listen").unwrap().port(), 8080);
    assert_eq!(values.path("data_dir").unwrap(), None);
    assert!(!values.flag("dev_login").unwrap());
    assert_eq!(values.integer::<usize>("shards").unwrap(), 2);
    assert_eq!(values.number("rate_per_second").unwrap(), 1.0);
    assert_eq!(values.duration("patience").unwrap(), Duration::from_secs(5));
    assert_eq!(values.list("roles").unwrap(), ["ingest", "rpc", "tasks"]);
    assert_eq!(values.optional("name").unwrap(), None);
    assert_eq!(values.source("listen").unwrap(), Source::Default);
    assert!(values.changed().is_empty());
}

#[test]
fn option_wins_over_environment_over_file() {
    let file = file("shards = 3\npatience = \"1m\"\n[kafka]\nbrokers = [\"a:1\", \"b:2\"]\n");
    let path = file.path().to_str().unwrap();
    let variables =
        [("CORELANE_SHARDS", "4"), ("CORELANE_KAFKA_BROKERS", "c:3"), ("CORELANE_CONFIG", path)];
    let values = load(&["--shards=5", "--dev-login"], &variables).unwrap();
    assert_eq!(values.integer::<u16>("shards").unwrap(), 5);
    assert_eq!(values.list("kafka.brokers").unwrap(), ["c:3"]);
    assert_eq!(values.duration("patience").unwrap(), Duration::from_secs(60));
    assert!(values.flag("dev_login").unwrap());
    for (name, source) in [
        ("shards", Source::Option),
        ("kafka.brokers", Source::Environment),
        ("patience", Source::File),
    ] {
        assert_eq!(values.source(name).unwrap(), source, "{name}");
    }
    // The last of two options holds, and an option's value may begin with a dash.
    let values = load(&["--shards", "7", "--shards", "8", "--name", "-x"], &[]).unwrap();
    assert_eq!(values.integer::<u8>("shards").unwrap(), 8);
    assert_eq!(values.text("name").unwrap(), "-x");
    let values = load(&["--dev-login=false"], &[("CORELANE_DEV_LOGIN", "true")]).unwrap();
    assert!(!values.flag("dev_login").unwrap());
}

/// One sentence with key, value and what is allowed.
fn names(result: Result<Values, Fault>, parts: &[&str]) {
    let Fault(sentence) = result.unwrap_err();
    for part in parts {
        assert!(sentence.contains(part), "\"{part}\" is missing in: {sentence}");
    }
    assert!(!sentence.contains('\n'), "{sentence}");
}

#[test]
fn bad_values_are_named_with_what_is_allowed() {
    for (name, values, allowed) in [
        (
            "listen",
            &["nowhere", "127.0.0.1", "localhost:80", "", ":80"][..],
            "IP address and a port",
        ),
        ("dev-login", &["yes", "1", "", "TRUE"], "true or false"),
        (
            "shards",
            &["0", "1025", "-1", "two", "1.5", "", "99999999999999999999"],
            "from 1 to 1024",
        ),
        ("rate-per-second", &["0", "NaN", "inf", "x", "-1"], "from 0.5 to 1000000"),
        ("patience", &["5", "s", "5 s", "9ms", "2h", "-5s", "1.5s", "", "5y"], "from 10ms to 1h"),
        ("patience", &["99999999999999999999s", "18446744073709551615d"], "from 10ms to 1h"),
        ("log", &["loud", "INFO", ""], "error, info or debug"),
        ("kafka-brokers", &["", "a,,b", ",", "a,"], "without empty entries"),
        (
            "kafka-first",
            &["", "a", "a:", ":1", "a:0", "a:65536", "a b:1", "[x]:1"],
            "host and a port",
        ),
        ("mysql-url", &["", "http://x", "mysql://", "mysql:///x", "mysql://a b"], "mysql://HOST"),
        ("roles", &["", "ingest,", "serve", "ingest rpc"], "ingest, rpc and tasks"),
    ] {
        for value in values {
            let shown = if name == "mysql-url" && !value.is_empty() { HIDDEN } else { value };
            let option = format!("--{name}");
            names(
                load(&[&format!("{option}={value}")], &[]),
                &[&option, &format!("\"{shown}\""), allowed],
            );
            let variable = format!("CORELANE_{}", name.replace('-', "_").to_uppercase());
            names(load(&[], &[(&variable, value)]), &[&variable, allowed]);
        }
    }
}

#[test]
fn good_values_are_taken() {
    for (name, good) in [
        ("listen", &["0.0.0.0:0", "[::1]:80"][..]),
        ("data-dir", &["/a b", "."]),
        ("patience", &["10ms", "1h", "60m", "3600s", "0060s"]),
        ("kafka-first", &["a.b-c_d:1", "127.0.0.1:65535", "[::1]:9092"]),
        ("mysql-url", &["mysql://u:p@h:3306/db?x=y", "mysqls://h"]),
        ("roles", &["rpc", "tasks, ingest"]),
        ("name", &["", "anything = \"goes\"", "\u{1f600}"]),
    ] {
        for value in good {
            load(&[&format!("--{name}"), value], &[]).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_on_the_command_line_is_one_sentence() {
    for (arguments, parts) in [
        (&["--shard", "2"][..], &["--shard", "no option of demo"][..]),
        (&["shards"], &["shards", "no option"]),
        (&["-s"], &["-s", "no option"]),
        (&["--"], &["--", "no option"]),
        (&["--shards"], &["--shards", "without a value", "from 1 to 1024"]),
        (&["--config"], &["--config", "without a value", "a path"]),
        (&["--config", "/no/such/file"], &["/no/such/file", "cannot be read"]),
        (&["--kafka.brokers", "a"], &["--kafka.brokers", "no option"]),
    ] {
        names(load(arguments, &[]), parts);
    }
    let bytes = || OsString::from_vec(vec![b'-', b'-', 0xff]);
    let Err(fault) = table().load([bytes()], |_| None) else { panic!("taken") };
    assert!(fault.0.contains("not UTF-8"), "{fault}");
    let Err(fault) = table().load([], |name| (name == "CORELANE_NAME").then(bytes)) else {
        panic!("taken")
    };
    assert!(fault.0.contains("CORELANE_NAME is not UTF-8"), "{fault}");
}

#[test]
fn faults_in_the_file_name_it_and_the_key() {
    for (text, parts) in [
        ("shards = 0", &["shards in /", "\"0\"", "from 1 to 1024"][..]),
        ("shards = true", &["shards in /", "\"true\"", "from 1 to 1024"]),
        ("shards = [1]", &["shards in /", "of type array", "from 1 to 1024"]),
        ("shards = 2.0", &["\"2.0\"", "from 1 to 1024"]),
        ("[shards]\nx = 1", &["shards in /", "of type table"]),
        ("shard = 2", &["\"shard\"", "no setting", "demo --help"]),
        ("[kafka]\nbroker = \"a\"", &["\"kafka.broker\"", "no setting"]),
        ("[kafka]\nbrokers = [1]", &["kafka.brokers in /", "of type array"]),
        ("[kafka]\nbrokers = [\"a,b\"]", &["kafka.brokers in /"]),
        ("[kafka]\nbrokers = []", &["kafka.brokers in /", "\"\"", "without empty entries"]),
        ("[kafka.more]\nx = 1", &["\"kafka.more\"", "no setting"]),
        ("\"kafka.brokers\" = 1979-05-27", &["kafka.brokers", "of type datetime"]),
        ("log = \"info\"\nshards = [", &["not TOML", "line 2"]),
        ("log = \"info\"\nlog = \"debug\"", &["not TOML", "line 2"]),
        ("[mysql]\nurl = \"hunter2\"", &["mysql.url in /", HIDDEN, "mysql://HOST"]),
    ] {
        names(load_file(text), parts);
    }
    let values =
        load_file("\"kafka.brokers\" = \"a,b\"\nrate_per_second = 1e3\nshards = 1_0").unwrap();
    assert_eq!(values.list("kafka.brokers").unwrap(), ["a", "b"]);
    assert_eq!(values.number("rate_per_second").unwrap(), 1000.0);
    assert_eq!(values.integer::<u8>("shards").unwrap(), 10);
}

#[test]
fn secrets_are_never_shown() {
    let values = load(&["--mysql-url", "mysql://u:hunter2@db/im", "--shards", "9"], &[]).unwrap();
    assert_eq!(values.text("mysql.url").unwrap(), "mysql://u:hunter2@db/im");
    let table = table();
    let shown = [
        format!("{values:?}"),
        values.changed().join("\n"),
        table.help(),
        table.document(&[("mysql.url", "mysql://u:hunter2@db/im")]).unwrap(),
        load(&["--mysql-url", "hunter2"], &[]).unwrap_err().0,
    ];
    for text in shown {
        assert!(!text.contains("hunter") && text.contains(HIDDEN), "{text}");
    }
    assert!(format!("{values:?}").contains("\"shards\": \"9\""));
    assert_eq!(values.changed(), ["mysql.url = (hidden)", "shards = 9"]);
}

#[test]
fn the_document_says_what_holds_and_can_be_read_back() {
    let text = table().document(&[]).unwrap();
    for line in [
        "# What is logged. May change while running.",
        "# Error, info or debug; variable CORELANE_LOG",
        "log = \"info\"",
        "shards = 2",
        "# data_dir = \"\"",
        "[kafka]",
        "brokers = [\"127.0.0.1:9092\"]",
        "# url = \"(hidden)\"",
    ] {
        assert!(text.lines().any(|found| found == line), "\"{line}\" is missing in:\n{text}");
    }
    let (read, default) = (load_file(&text).unwrap(), load(&[], &[]).unwrap());
    assert_eq!(read.differing(&default), [""; 0]);
    let text = table().document(&[("shards", "16"), ("kafka.brokers", "k1:9092,k2:9092")]).unwrap();
    let read = load_file(&text).unwrap();
    assert_eq!(read.differing(&default), ["kafka.brokers", "shards"]);
    assert_eq!(read.list("kafka.brokers").unwrap(), ["k1:9092", "k2:9092"]);
    assert!(table().document(&[("shard", "1")]).unwrap_err().0.contains("no setting"));
    assert!(table().document(&[("shards", "0")]).unwrap_err().0.contains("from 1 to 1024"));
}

#[test]
fn help_version_and_document_are_printed() {
    for (argument, part) in [
        ("--help", "--kafka-brokers A,B,..."),
        ("-h", "What is logged (may change while running) [info]"),
        ("--version", "demo 0."),
        ("-V", "demo 0."),
        ("--print-config", "[kafka]"),
    ] {
        // Wins over whatever else is wrong with the settings.
        let arguments = [argument.into(), "--nonsense".into()];
        let Outcome::Print(text) = table().load(arguments, |_| Some("?".into())).unwrap() else {
            panic!("{argument} ran")
        };
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn dynamic_settings_change_hot_keys_only() {
    let values = load(&["--log", "error"], &[]).unwrap();
    let dynamic = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let (changed, faults) = values.overlay(&dynamic(&[
        ("log", "debug"),
        ("shards", "9"),
        ("rate_per_second", "fast"),
        ("drain/gateway-1", "true"),
        ("of_another_program", "1"),
    ]));
    assert_eq!(changed.differing(&values), ["log"]);
    assert_eq!(changed.text("log").unwrap(), "debug");
    assert_eq!(changed.source("log").unwrap(), Source::Dynamic);
    let faults: Vec<String> = faults.into_iter().map(|fault| fault.0).collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("rate_per_second") && faults[0].contains("\"fast\""), "{faults:?}");
    assert!(faults[1].contains("shards") && faults[1].contains("restart"), "{faults:?}");
    // Laid over the settings of the start each time: what is removed falls back.
    assert_eq!(values.overlay(&dynamic(&[])).0, values);
}

#[test]
fn asking_for_what_is_not_there_is_a_fault() {
    let values = load(&["--shards", "300"], &[]).unwrap();
    for (fault, part) in [
        (values.text("nothing").unwrap_err(), "no setting of demo"),
        (values.flag("shards").unwrap_err(), "asked for as true or false"),
        (values.list("listen").unwrap_err(), "asked for as a list"),
        (values.integer::<u8>("shards").unwrap_err(), "300, which is too large"),
    ] {
        assert!(fault.0.contains(part), "{fault}");
    }
}

#[test]
fn a_table_that_cannot_be_is_refused() {
    const fn text(name: &'static str) -> Key {
        Key::new(name, Kind::Text, "", "")
    }
    for keys in [
        &[text("a.b"), text("a_b")][..],
        &[text("config")],
        &[text("print_config")],
        &[text("Upper")],
        &[text("a.b.c")],
        &[text("")],
        &[text("a-b")],
        &[Key::new("n", Kind::Integer { min: 1, max: 2 }, "3", "")],
    ] {
        assert!(Table::new("demo", "", &[keys]).is_err(), "{keys:?}");
    }
}

proptest::proptest! {
    /// Whatever is given, there is a value or one sentence.
    #[test]
    fn any_argument_is_taken_or_named(arguments in proptest::collection::vec(".{0,12}|--[a-z-]{1,10}(=.{0,6})?", 0..4)) {
        if let Err(Fault(sentence)) = table().load(arguments.iter().map(OsString::from), |_| None) {
            proptest::prop_assert!(!sentence.is_empty());
        }
    }

    #[test]
    fn any_file_is_taken_or_named(text in "([a-z_.]{1,8} ?= ?[0-9a-z\"\\[\\],]{0,8}\n|\\[[a-z]{1,6}\\]\n){0,4}") {
        if let Err(Fault(sentence)) = load_file(&text) {
            proptest::prop_assert!(!sentence.contains('\n'));
        }
    }
}
