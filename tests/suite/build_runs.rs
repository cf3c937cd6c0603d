//! `RUN`: shells, heredocs, users, working directories, what a step is given and what it is not.

use crate::recipe::Recipe;

#[test]
fn a_command_that_cannot_be_run_says_why() {
    let Some(recipe) = Recipe::new() else { return };
    for (text, words) in [
        ("RUN nosuchcommand\n", "/bin/sh -c nosuchcommand"),
        ("RUN nosuchcommand\n", "did not complete successfully"),
        // What is no JSON is for the shell, which sees the brackets.
        ("RUN [\"echo\", \"x\"]and more\n", "and more"),
        ("FNTRYPOINT [\"x\"]\n", "unknown instruction: FNTRYPOINT"),
        ("FNTRYPOINT [\"x\"]\n", "did you mean ENTRYPOINT?"),
    ] {
        recipe.bad(&[], &format!("FROM busybox\n{text}"), words);
    }
    let text = "FROM busybox\nENTRYPOINT []any text\n";
    recipe.build(&["-t", "e"], text).exits(0);
    let shell = serde_json::json!(["/bin/sh", "-c", "[]any text"]);
    assert_eq!(recipe.config("e")["Entrypoint"], shell);
    // A step is no container of the image: its entrypoint has no part in it.
    recipe.good(&[], "FROM busybox\nENTRYPOINT [\"/absent\"]\nRUN [\"ls\"]\n");
    recipe.build(&["-t", "c"], "FROM scratch\nCMD [\"x\"]\n").exits(0);
    let text = "FROM c\nSHELL [\"ls\"]\nENTRYPOINT my entry\n";
    recipe.build(&["-t", "d"], text).exits(0);
    let config = recipe.config("d");
    assert_eq!(config["Entrypoint"], serde_json::json!(["ls", "my entry"]));
    assert!(config["Cmd"].is_null(), "{config}");
}

/// Files by heredoc; each is checked by its name.
const FILES: &str = r#"FROM busybox AS build
ARG name=world
WORKDIR /dest
COPY <<EOF single
one file
EOF
COPY <<EOF <<TWO double/
first
EOF
second
TWO
COPY --chmod=777 <<EOF /all
x
EOF
COPY --chown=ada:ada --chmod=0640 <<EOF /own
x
EOF
RUN stat -c '%a %U:%G' /all /own > perms
COPY <<EOF quotes
"${name}" '${name}'
EOF
COPY <<EOF slash
\
EOF
COPY <<EOF slashes
\\
EOF
COPY <<EOF dollar
\$
EOF
COPY <<"EOF" raw
\ \\ \$ '${name}' "${name}"
EOF
COPY <<'EOF' single-raw
Hello ${name}!
EOF
FROM scratch
COPY --from=build /dest /
"#;

#[test]
fn heredocs_are_files_with_owner_mode_and_special_characters() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.output(&[], FILES).holds(&[
        ("single", "one file\n"),
        ("double/EOF", "first\n"),
        ("double/TWO", "second\n"),
        ("perms", "777 root:root\n640 ada:ada\n"),
        ("quotes", "\"world\" 'world'\n"),
        ("slash", "\n"),
        ("slashes", "\\\n"),
        ("dollar", "$\n"),
        ("raw", "\\ \\\\ \\$ '${name}' \"${name}\"\n"),
        ("single-raw", "Hello ${name}!\n"),
    ]);
}

/// Scripts by heredoc; each leaves a file that is checked by its name.
const SCRIPTS: &str = "FROM busybox AS build
RUN ln -s busybox /bin/awk
ARG name=world
WORKDIR /dest
RUN <<EOF
echo I am > who
whoami >> who
EOF
RUN <<EOF
greeting=Hello
echo \"${greeting} ${name}\" > given
name=another
echo \"${greeting} ${name}\" > set
EOF
RUN <<EOF
#!/bin/awk -f
BEGIN { print \"awk\" > \"script\" }
EOF
RUN <<-EOF
\t#!/bin/awk -f
\tBEGIN { print \"tab\" > \"indented\" }
EOF
RUN cat <<A | tr a-z A-Z > out1; \\
    cat <<B | tr A-Z a-z > out2
one TWO
A
THREE four
B
RUN <<EOF 3<<IN1 4<<IN2 sh
cat <&3 | tr a-z A-Z > fd3
cat <&4 | tr A-Z a-z > fd4
EOF
Third
IN1
Fourth
IN2
COPY <<EOF kept
\ttab
EOF
COPY <<-EOF stripped
\ttab
EOF
RUN <<EOF
echo \"
\ttab\" > kept-run
EOF
RUN <<-EOF
\techo \"
\ttab\" > stripped-run
EOF
RUN <<-EOF sh > stripped-input
\techo \"
\ttab\"
EOF
SHELL [\"/bin/awk\"]
RUN <<EOF
BEGIN { print \"shell\" > \"/dest/other\" }
EOF
FROM scratch
COPY --from=build /dest /
";

#[test]
fn heredocs_are_scripts_input_and_several_at_once() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.output(&[], SCRIPTS).holds(&[
        ("who", "I am\nroot\n"),
        ("given", "Hello world\n"),
        ("set", "Hello another\n"),
        ("script", "awk\n"),
        ("indented", "tab\n"),
        ("out1", "ONE TWO\n"),
        ("out2", "three four\n"),
        ("fd3", "THIRD\n"),
        ("fd4", "fourth\n"),
        ("kept", "\ttab\n"),
        ("stripped", "tab\n"),
        ("kept-run", "\n\ttab\n"),
        ("stripped-run", "\ntab\n"),
        ("stripped-input", "\ntab\n"),
        ("other", "shell\n"),
    ]);
}

#[test]
fn users_have_the_groups_of_the_image_and_the_primary_one_among_them() {
    let Some(recipe) = Recipe::new() else { return };
    // Each with what `id` says of user, group and groups.
    let mut text = "FROM busybox\nRUN sed -i 's/^wheel.*/wheel:x:10:root/' /etc/group && \
                    echo 'dock:x:1001:1001::/:/bin/false' >> /etc/passwd && \
                    echo 'dock:x:1001:' >> /etc/group && echo 'more:x:1002:dock' >> /etc/group\n"
        .to_owned();
    for (user, said) in [
        ("root", "0 0 0 10"),
        ("dock", "1001 1001 1001 1002"),
        ("1001", "1001 1001 1001 1002"),
        ("dock:dock", "1001 1001 1001"),
        ("1001:dock", "1001 1001 1001"),
        ("dock:1001", "1001 1001 1001"),
        ("dock:more", "1001 1002 1002"),
        ("1001:1002", "1001 1002 1002"),
        ("1042:1043", "1042 1043 1043"),
        ("1234", "1234 0 0"),
    ] {
        text.push_str(&format!(
            "USER {user}\nRUN test \"$(id -u) $(id -g) $(id -G)\" = '{said}' || {{ id; exit 1; }}\n"
        ));
    }
    recipe.good(&[], &text);
    recipe.build(&["-t", "u"], "FROM scratch\nUSER nobody\n").exits(0);
    assert_eq!(recipe.config("u")["User"], "nobody");
}

#[test]
fn a_working_directory_is_made_for_its_user_and_one_that_is_there_is_kept() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.good(
        &[],
        "FROM busybox\nRUN mkdir /there && busybox chown ada:ada /there && chmod 700 /there\nWORKDIR /there\n\
         RUN test \"$(stat -c '%U:%G %a' /there)\" = 'ada:ada 700'\nUSER ada\nWORKDIR /mine/deep\n\
         RUN test \"$(stat -c %U:%G /mine/deep)\" = ada:ada\n",
    );
    let out = recipe.output(&[], "FROM scratch\nWORKDIR /foo\nWORKDIR /\n");
    assert!(out.path("foo").is_dir());
    // The path of a source is that of the stage, whatever its working directory is.
    recipe.good(
        &[],
        "FROM scratch AS base\nWORKDIR /foo\nCOPY Dockerfile /\nFROM scratch\nCOPY --from=base Dockerfile .\n",
    );
}

#[test]
fn a_step_knows_the_hosts_name_that_was_asked_for() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "FROM busybox\nRUN grep -q foo /etc/hosts && test \"$(hostname)\" = foo && test \"$HOSTNAME\" = foo\n";
    recipe.good(&["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=foo"], text);
    recipe.good(&[], "FROM busybox\nRUN test \"$(hostname)\" = buildkitsandbox\n");
}

#[test]
fn mounts_are_the_context_memory_caches_and_stages() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("f", "inside"), ("b.txt", "bar\n"), ("a.txt", "foo\n")]);
    recipe.good(
        &[],
        "FROM busybox\nARG KIND=cache\nENV WHERE=/c\n\
         RUN --mount=target=/context test \"$(cat /context/f)\" = inside\n\
         RUN --mount=target=/m,type=tmpfs touch /m/x\nRUN test ! -e /m/x\n\
         RUN --mount=type=tmpfs,target=/dev/shm,size=128m grep ' /dev/shm ' /proc/mounts | grep -q size=131072k\n\
         RUN mkdir /was && echo here > /was/f\nRUN --mount=type=tmpfs,target=/was,tmpcopyup grep -q here /was/f && touch /was/g\n\
         RUN test ! -e /was/g\nRUN --mount=type=tmpfs,target=/was test ! -e /was/f\n\
         RUN --mount=type=cache,target=/c touch /c/x\nRUN --mount=type=cache,target=/other test ! -e /other/x\n\
         RUN --mount=type=cache,target=/c test -e /c/x\nRUN --mount=type=cache,target=$WHERE test -e $WHERE/x\n\
         RUN --mount=type=$KIND,target=/k touch /k/y\nRUN --mount=type=cache,target=/k test -e /k/y\n\
         RUN --mount=type=cache,target=/owned,uid=1001,gid=1002,mode=0751 test \"$(stat -c '%u %g %a' /owned)\" = '1001 1002 751'\n",
    );
    recipe.good(
        &[],
        "ARG META=/tmp/meta\nFROM busybox AS one\nENV TYPE=cache ID=mine\nRUN --mount=type=cache,id=mine,target=/z touch /z/v\n\
         RUN --mount=type=$TYPE,id=$ID,target=/y test -e /y/v\n\
         FROM one\nARG META\nRUN --mount=type=$TYPE,id=$ID,target=/w test -e /w/v\n\
         RUN --mount=type=cache,id=mine,target=$META test -e /tmp/meta/v\n",
    );
    // One mount within another: what changed of the context is seen.
    let text = "FROM busybox\nRUN --mount=source=.,target=/t/all --mount=source=b.txt,target=/t/b.txt \
                cat /t/all/a.txt /t/b.txt > /both\nFROM scratch\nCOPY --from=0 /both /\n";
    recipe.output(&[], text).holds(&[("both", "foo\nbar\n")]);
    recipe.files(&[("a.txt", "new\n")]);
    recipe.output(&[], text).holds(&[("both", "new\nbar\n")]);
    // What is read of a stage decides, not the stage's other files; what is written there is gone.
    let text = "FROM busybox AS made\nCOPY a.txt /\nRUN mkdir out && echo foo > out/foo\nFROM busybox AS next\n\
                RUN --mount=from=made,src=out,target=/out,rw touch /out/bar && cat /proc/sys/kernel/random/uuid > /unique\n\
                FROM scratch\nCOPY --from=next /unique /\n";
    let first = recipe.output(&[], text).text("unique");
    recipe.files(&[("a.txt", "again\n")]);
    assert_eq!(recipe.output(&[], text).text("unique"), first);
}

#[test]
fn the_source_of_a_mount_may_be_said_by_a_variable() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.good(
        &[],
        "ARG which=one\nFROM busybox AS one\nRUN echo 1 > /f\nFROM busybox AS two\nRUN echo 2 > /f\n\
         FROM busybox\nARG which\nENV other=two\nRUN --mount=from=$which,target=/m test \"$(cat /m/f)\" = 1\n\
         RUN --mount=from=${other},target=/m test \"$(cat /m/f)\" = 2\n",
    );
    let text = "FROM busybox\nRUN --mount=from=$nothing,target=/m true\n";
    recipe.bad(&[], text, "from expands to nothing");
    let text = "FROM busybox AS a\nARG later=b\nRUN --mount=from=$later,target=/m true\nFROM a AS b\n";
    recipe.bad(&["--target", "a"], text, "needs to be defined before");
}

#[test]
fn mistakes_in_mounts_are_told_with_what_was_meant() {
    let Some(recipe) = Recipe::new() else { return };
    for (line, words) in [
        ("RUN --mont=target=/m,type=tmpfs true", "unknown flag: --mont"),
        ("RUN --mont=target=/m,type=tmpfs true", "did you mean --mount?"),
        ("RUN --mount=typ=tmpfs true", "unexpected key 'typ'"),
        ("RUN --mount=typ=tmpfs true", "did you mean type?"),
        ("RUN --mount=type=tmp true", "unsupported mount type \"tmp\""),
        ("RUN --mount=type=tmp true", "did you mean tmpfs?"),
    ] {
        recipe.bad(&[], &format!("FROM scratch\n{line}\n"), words);
    }
}

#[test]
fn caches_of_two_steps_at_once_may_lie_in_each_other_and_no_link_leads_out_of_one() {
    let Some(recipe) = Recipe::new() else { return };
    let mut text = String::new();
    for stage in ["a", "b"] {
        text.push_str(&format!(
            "FROM busybox AS {stage}\n\
             RUN --mount=type=cache,target=/x/y --mount=type=cache,target=/x/y/z echo {stage} > /{stage}\n"
        ));
    }
    text.push_str("FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n");
    for _ in 0..5 {
        recipe.good(&["--no-cache"], &text);
    }
    let text = "FROM busybox AS first\nRUN --mount=type=cache,id=e,target=/c mkdir -p /c/sel && echo ok > /c/sel/ok\n\
                FROM first AS link\nRUN --mount=type=cache,id=e,target=/c rm -rf /c/sel && ln -s /etc /c/sel\n\
                FROM link\nRUN --mount=type=cache,id=e,source=sel,target=/v cat /v/passwd\n";
    let ran = recipe.build(&["-o", "type=cacheonly"], text).exits(1);
    assert!(!ran.stderr.contains("root:"), "{ran:?}");
}

#[test]
fn without_the_cache_a_cache_mount_begins_anew() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "FROM busybox\nARG NAME=one\nRUN --mount=type=cache,target=/c,mode=0773 touch /c/$NAME && ls /c > /out\n\
                FROM scratch\nCOPY --from=0 /out /\n";
    recipe.output(&[], text).holds(&[("out", "one\n")]);
    let flags = ["--no-cache", "--build-arg", "NAME=two"];
    recipe.output(&flags, text).holds(&[("out", "two\n")]);
    recipe
        .output(&["--build-arg", "NAME=three"], text)
        .holds(&[("out", "three\ntwo\n")]);
}

#[test]
fn secrets_are_files_of_an_owner_or_variables_and_no_name_tells_them() {
    let Some(recipe) = Recipe::new() else { return };
    let file = recipe.world.file("pw", "pw123");
    let flag = format!("id=mysecret,src={}", file.display());
    let ran = recipe.good(
        &["--secret", &flag],
        "FROM busybox\nENV SECRET=foo\n\
         RUN --mount=type=secret,required=false,mode=741,uid=100,gid=102,id=mysecret,target=/s test \"$(stat -c '%u %g %a' /s)\" = '100 102 741'\n\
         RUN test ! -e /s\n\
         RUN --mount=type=secret,id=mysecret,env=SECRET test \"$SECRET\" = pw123 && test ! -e /run/secrets/mysecret\n\
         RUN --mount=type=secret,id=mysecret,target=/run/secrets/x,env=SECRET test \"$SECRET\" = \"$(cat /run/secrets/x)\"\n\
         RUN --mount=type=secret,target=/mysecret test -s /mysecret\n",
    );
    // Nor does the name of the step show the value that the variable had before.
    assert!(ran.stderr.contains("\"****\" = pw123"), "{ran:?}");
    let text = "FROM busybox\nRUN --mount=type=secret,required,id=mysecret foo\n";
    recipe.bad(&[], text, "secret mysecret: not found");
}

#[test]
fn a_step_has_the_rights_of_a_container() {
    let Some(recipe) = Recipe::new() else { return };
    let bounded = "grep -q '^CapBnd:\t00000000a80425fb$' /proc/self/status";
    for flag in ["", "--security=sandbox "] {
        let text = format!("FROM busybox\nRUN {flag}{bounded} && test ! -e /dev/kmsg\n");
        recipe.good(&[], &text);
        recipe.good(&["--allow", "security.insecure"], &text);
    }
    let text = format!(
        "FROM busybox\nRUN --security=insecure test -c /dev/kmsg && ! {bounded}\nRUN {bounded} && test ! -e /dev/kmsg\n"
    );
    recipe.good(&["--allow", "security.insecure"], &text);
}

/// The index of the host's end of its link tells one connection from every other.
#[test]
fn a_step_hands_its_network_on_unless_something_of_it_is_left_there() {
    let Some(recipe) = Recipe::new() else { return };
    let note = |file: &str| format!("cat /sys/class/net/eth0/iflink > /{file}");
    let talk = "nc -l -p 7777 -e true & while ! nc 127.0.0.1 7777 < /dev/null; do true; done";
    let text = format!(
        "FROM busybox\nRUN {}\nRUN {}\nRUN --network=none test ! -e /sys/class/net/eth0 && {talk}\n\
         RUN --network=none ! grep -q 1E61 /proc/net/tcp && test ! -e /sys/class/net/eth0\nRUN {} && {talk}\n\
         RUN {} && ! grep -q 1E61 /proc/net/tcp\nRUN --security=insecure {}\nRUN {}\nRUN cat /? | tr '\\n' ' ' > /all\n",
        note("1"),
        note("2"),
        note("3"),
        note("4"),
        note("5"),
        note("6"),
    );
    let options = [
        "--network",
        "default",
        "--allow",
        "security.insecure",
        "-t",
        "links",
    ];
    recipe.build(&options, &text).exits(0);
    let ran = recipe.world.say("run --rm links cat /all").exits(0);
    let links: Vec<&str> = ran.stdout.split_whitespace().collect();
    let [first, second, third, fourth, fifth, sixth] = links[..] else {
        panic!("{links:?}")
    };
    assert_eq!([first, second, third], [first; 3], "handed on");
    assert_ne!(third, fourth, "a connection that was closed is left");
    assert_eq!(fourth, fifth, "whoever may change it gets one, too");
    assert_ne!(fifth, sixth, "and hands none on");
    // Nothing of it stays at the end.
    let endpoints = std::fs::read_dir(recipe.world.root().join("networks/bridge/endpoints")).unwrap();
    assert_eq!(endpoints.count(), 0);
    let run = std::fs::read_dir(recipe.world.root().join("run")).unwrap();
    let names: Vec<_> = run.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !names.iter().any(|name| name.to_string_lossy().contains("step-")),
        "{names:?}"
    );
}
