use proptest::prelude::*;
use serde_json::{Value, json};

use super::Template;

fn fill(template: &str, data: &Value) -> String {
    Template::parse(template)
        .unwrap()
        .fill(data, None)
        .unwrap_or_else(|error| panic!("{template}: {error}"))
}

fn refused(template: &str, data: &Value) -> String {
    match Template::parse(template) {
        Err(error) => error.to_string(),
        Ok(template) => template.fill(data, None).unwrap_err().to_string(),
    }
}

fn container() -> Value {
    json!({
        "Id": "0123456789abcdef",
        "Name": "/web",
        "Args": ["-g", "daemon off;"],
        "State": {"Status": "running", "Running": true, "Pid": 4711, "ExitCode": 0},
        "Config": {"Labels": {"a": "1", "b": "2"}, "Cmd": ["nginx"], "Image": "nginx:latest"},
        "HostConfig": {"LogConfig": {"Type": "local"}},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8787"}], "443/tcp": null},
            "Networks": {"bridge": {"IPAddress": "172.17.0.2", "MacAddress": "02:42:ac:11:00:02"}},
        },
        "Mounts": [{"Source": "/a", "Destination": "/b"}, {"Source": "/c", "Destination": "/d"}],
    })
}

/// The examples of docker's own manual (docs/reference/commandline/container_inspect.md, config/formatting.md).
#[test]
fn examples_of_dockers_manual_give_what_it_says() {
    let data = container();
    for (template, expected) in [
        (
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            "172.17.0.2",
        ),
        (
            "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}",
            "02:42:ac:11:00:02",
        ),
        ("{{.HostConfig.LogConfig.Type}}", "local"),
        ("{{.Config.Image}}", "nginx:latest"),
        (
            "{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{with $conf}}{{(index . 0).HostPort}}{{end}} {{end}}",
            " 443/tcp ->   80/tcp -> 8787 ",
        ),
        (
            r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#,
            "8787",
        ),
        (
            r#"{{(index .NetworkSettings.Ports "80/tcp" 0).HostPort}}"#,
            "8787",
        ),
        ("{{json .Config.Labels}}", r#"{"a":"1","b":"2"}"#),
        (r#"{{join .Args " , "}}"#, "-g , daemon off;"),
        (
            "{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}",
            "/a:/b /c:/d ",
        ),
        (r#"{{split .Config.Image ":"}}"#, "[nginx latest]"),
        (r"{{title .State.Status}}", "Running"),
        ("{{upper .Name}}{{lower .Name}}", "/WEB/web"),
        (r#"{{pad .Name 2 1}}|"#, "  /web |"),
        (r"{{println .Name}}", "/web\n"),
        (r#"{{truncate .Id 12}}"#, "0123456789ab"),
        ("{{slice .Id 0 4}}", "0123"),
    ] {
        assert_eq!(fill(template, &data), expected, "{template}");
    }
}

#[test]
fn conditions_take_the_first_true_branch() {
    let data = container();
    for (template, expected) in [
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        (
            "{{if not .State.Running}}a{{else if eq .State.Pid 4711}}b{{else}}c{{end}}",
            "b",
        ),
        (
            r#"{{if and .State.Running (eq .State.Status "running" "paused")}}x{{end}}"#,
            "x",
        ),
        (
            r#"{{if or (gt .State.Pid 5000) (lt .State.Pid 4712)}}x{{end}}"#,
            "x",
        ),
        ("{{if .State.ExitCode}}bad{{else}}fine{{end}}", "fine"),
        (
            "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
            "none",
        ),
        ("{{with .State.Health}}{{.Status}}{{else}}none{{end}}", "none"),
        (r#"{{with index .Config.Labels "a"}}<{{.}}>{{end}}"#, "<1>"),
        ("{{range .Config.Nothing}}x{{else}}empty{{end}}", "empty"),
        ("{{if and false (index .Args 99)}}x{{end}}", ""),
    ] {
        assert_eq!(fill(template, &data), expected, "{template}");
    }
}

#[test]
fn variables_live_to_the_end_of_their_block() {
    let data = container();
    assert_eq!(
        fill("{{$x := 1}}{{range .Args}}{{$x}}{{$x = 2}}{{end}}{{$x}}", &data),
        "122"
    );
    assert_eq!(
        fill("{{range $i, $e := .Args}}{{$i}}={{$e}};{{end}}", &data),
        "0=-g;1=daemon off;;"
    );
    assert_eq!(fill("{{range .Args}}{{$.Name}}{{break}}{{end}}", &data), "/web");
    assert_eq!(
        fill(
            "{{range .Args}}{{if eq . \"-g\"}}{{continue}}{{end}}{{.}}{{end}}",
            &data
        ),
        "daemon off;"
    );
    assert!(refused("{{if true}}{{$y := 1}}{{end}}{{$y}}", &data).contains("undefined variable"));
}

#[test]
fn trim_markers_and_comments_leave_nothing() {
    let data = json!({"A": 1});
    assert_eq!(fill("x  {{- /* no */ -}}  y", &data), "xy");
    assert_eq!(fill("a \n{{- .A -}}\n b", &data), "a1b");
    assert_eq!(fill("{{/* only */}}", &data), "");
    assert_eq!(fill("{{ -3 }} {{- 3 }}", &data), "-33");
}

#[test]
fn values_print_as_go_prints_them() {
    let data = json!({"L": [1, "a", null], "M": {"b": 1, "a": [true]}, "N": null, "F": 1.5});
    assert_eq!(
        fill("{{.L}} {{.M}} {{.N}} {{.F}}", &data),
        "[1 a <nil>] map[a:[true] b:1] <no value> 1.5"
    );
    assert_eq!(
        fill(
            r#"{{printf "%s|%d|%v|%q|%5d|%-4s|%05d|%.2f|%%" "a" 1 .L "x\"y" 7 "b" 42 .F}}"#,
            &data
        ),
        r#"a|1|[1 a <nil>]|"x\"y"|    7|b   |00042|1.50|%"#
    );
    assert_eq!(fill(r#"{{printf "%d %s" "x"}}"#, &data), "%!d(x) %!s(MISSING)");
    assert_eq!(fill(r#"{{"x" | printf "%s-%s" "y" | upper}}"#, &data), "Y-X");
    assert_eq!(
        fill(r#"{{print 1 2 "a" 3}} {{len .L}} {{`raw\n`}}"#, &data),
        r"1 2a3 3 raw\n"
    );
}

#[test]
fn mistakes_are_named_with_their_place() {
    let data = container();
    for (template, expected) in [
        ("{{.Nope}}", ":1:3: can't evaluate field Nope"),
        ("{{.State.Nope}}", ":1:3: can't evaluate field Nope"),
        ("line\n  {{.State.Status", ":2:3: unclosed action"),
        ("{{nope .}}", r#"function "nope" not defined"#),
        ("{{if .A}}", "unclosed {{if}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{index .Args 9}}", "index out of range: 9"),
        ("{{.State.Health.Status}}", "nil pointer"),
        ("{{.Name 1}}", "non-function"),
        ("{{eq 1 \"a\"}}", "incompatible types"),
        ("{{\"abc}}", "unterminated"),
        ("{{break}}", "outside"),
        ("{{template \"x\"}}", "not supported"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{.Name)}}", "unexpected right paren"),
        ("{{}}", "missing value"),
    ] {
        let said = refused(template, &data);
        assert!(said.contains(expected), "{template}: {said}");
        assert!(said.starts_with("template parsing error: "), "{said}");
    }
}

#[test]
fn a_key_that_a_map_lacks_is_no_value() {
    assert_eq!(fill("{{.Config.Labels.zzz}}", &container()), "<no value>");
}

#[test]
fn labels_are_asked_for_by_name() {
    let template = Template::parse(r#"{{.Label "a.b"}}|{{.Label "none"}}"#).unwrap();
    let labels = json!({"a.b": "x"});
    assert_eq!(
        template.fill(&json!({"ID": 1}), labels.as_object()).unwrap(),
        "x|"
    );
}

#[test]
fn hostile_depth_and_work_are_refused() {
    let deep = format!("{}x{}", "{{if true}}".repeat(100), "{{end}}".repeat(100));
    assert!(refused(&deep, &Value::Null).contains("too deeply"));
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(refused(&parens, &Value::Null).contains("too deeply"));
    let work = format!("{}x{}", "{{range 60000}}".repeat(5), "{{end}}".repeat(5));
    assert!(refused(&work, &Value::Null).contains("too much"));
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,80}") {
        if let Ok(template) = Template::parse(&text) {
            drop(template.fill(&container(), None));
        }
    }

    #[test]
    fn nothing_made_of_template_words_panics(words in prop::collection::vec(prop::sample::select(vec![
        "{{", "}}", "{{-", "-}}", " ", "if ", "else ", "end", "range ", "with ", ".", ".Name", ".State.Pid", "$x", ":=",
        "=", "|", "(", ")", "index ", "printf ", "\"%5d%s%q\"", "json ", "slice ", "1", "-1", "99999999999", "len ", ",",
        "'a'", "\"", "`", "/*", "*/", "break", "continue", "$", "\\", "\n", "eq ", "join ", "ä",
    ]), 0..24)) {
        if let Ok(template) = Template::parse(&words.concat()) {
            drop(template.fill(&container(), None));
        }
    }
}

#[test]
fn a_structure_is_printed_without_the_names_of_its_fields() {
    let data = serde_json::json!({"Ulimits": [{"Hard": -1, "Name": "RLIMIT_CORE", "Soft": 5}]});
    let template = Template::parse("{{.Ulimits}}").unwrap();
    assert_eq!(template.fill(&data, None).unwrap(), "[{RLIMIT_CORE 5 -1}]");
}
