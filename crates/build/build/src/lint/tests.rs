use super::*;

/// Config of the bases that are known here: they have `GREETING`, and one has a shell.
fn base(name: &str, platform: &Platform) -> Option<ImageConfig> {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        ..ImageConfig::default()
    };
    config.config.env = vec!["GREETING=ahoy".to_owned()];
    match name {
        "foreign" => "vax".clone_into(&mut config.architecture),
        "shelled" => config.config.shell = Some(vec!["/bin/bash".to_owned(), "-c".to_owned()]),
        "unknown" => return None,
        _ => {}
    }
    Some(config)
}

fn checked(request: &Request, ignore: Option<&str>) -> Findings {
    let file = dhow_dockerfile::parse(&request.dockerfile)
        .unwrap_or_else(|e| panic!("{}: {e:?}", request.dockerfile));
    let ignore = ignore.map(|text| Patterns::parse(text).unwrap());
    let around = Around {
        file: &file,
        request,
        base: &base,
        ignore: ignore.as_ref(),
        reached: None,
    };
    check(&around, &Choice::new(&file, request).unwrap())
}

/// Rule, first line and sentence of each warning.
fn said(text: &str) -> Vec<(Rule, usize, String)> {
    let findings = checked(&Request::new(text), None);
    assert!(findings.trouble.is_none(), "{text}: {:?}", findings.trouble);
    let line = |warning: &Warning| warning.at.line_column(text).0;
    let all = findings.warnings.iter();
    all.map(|warning| (warning.rule, line(warning), warning.detail.clone()))
        .collect()
}

fn silent(text: &str) {
    assert_eq!(said(text), [], "{text}");
}

#[track_caller]
fn one(text: &str, rule: Rule, line: usize, detail: &str) {
    assert_eq!(said(text), [(rule, line, detail.to_owned())], "{text}");
}

#[test]
fn keywords_have_the_case_of_the_majority() {
    let rule = Rule::ConsistentInstructionCasing;
    one(
        "FROM a\nRUN true\nWorkDir /x\n",
        rule,
        3,
        "Command 'WorkDir' should match the case of the command majority (uppercase)",
    );
    one(
        "from a\nrun true\nUSER b\n",
        rule,
        3,
        "Command 'USER' should match the case of the command majority (lowercase)",
    );
    silent("from a\nrun true\n");
    silent("FROM a\nRUN true\n");
    // As many as few: upper case.
    one(
        "FROM a\nrun true\n",
        rule,
        2,
        "Command 'run' should match the case of the command majority (uppercase)",
    );
}

#[test]
fn names_of_stages() {
    one(
        "FROM a AS Maker\n",
        Rule::StageNameCasing,
        1,
        "Stage name 'Maker' should be lowercase",
    );
    silent("FROM a AS maker-2\n");
    one(
        "FROM a as x\n",
        Rule::FromAsCasing,
        1,
        "'as' and 'FROM' keywords' casing do not match",
    );
    one(
        "from a AS x\n",
        Rule::FromAsCasing,
        1,
        "'AS' and 'from' keywords' casing do not match",
    );
    silent("from a as x\n");
    one(
        "FROM a AS x\nFROM b AS y\nFROM c AS x\n",
        Rule::DuplicateStageName,
        3,
        "Duplicate stage name \"x\", stage names should be unique",
    );
    for name in ["scratch", "context"] {
        one(
            &format!("FROM a AS {name}\n"),
            Rule::ReservedStageName,
            1,
            &format!("Stage name should not use the same name as reserved stage {name:?}"),
        );
    }
}

#[test]
fn bases_and_their_arguments() {
    one(
        "ARG VERSION=1\nFROM a:${VERSOIN}1\n",
        Rule::UndefinedArgInFrom,
        2,
        "FROM argument 'VERSOIN' is not declared (did you mean VERSION?)",
    );
    one(
        "FROM a:1$FLAVOUR\n",
        Rule::UndefinedArgInFrom,
        1,
        "FROM argument 'FLAVOUR' is not declared",
    );
    silent("ARG FLAVOUR\nFROM a:1$FLAVOUR\n");
    silent("ARG FLAVOUR=-slim\nFROM a:1$FLAVOUR\n");
    one(
        "ARG TAG\nFROM a:$TAG AS x\n",
        Rule::InvalidDefaultArgInFrom,
        2,
        "Default value for ARG a:$TAG results in empty or invalid base image name",
    );
    silent("ARG TAG=1\nFROM a:$TAG\n");
    silent("ARG TAG\nFROM a:${TAG:-1}\n");
    // What a build argument mends is told all the same.
    let mut request = Request::new("ARG TAG\nFROM a:$TAG\n");
    request.build_args.insert("TAG".to_owned(), "1".to_owned());
    let found = checked(&request, None).warnings;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rule, Rule::InvalidDefaultArgInFrom);
}

#[test]
fn platforms() {
    for text in ["$TARGETPLATFORM", "${TARGETPLATFORM}"] {
        one(
            &format!("FROM --platform={text} a\n"),
            Rule::RedundantTargetPlatform,
            1,
            &format!(
                "Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
            ),
        );
    }
    silent("FROM --platform=$BUILDPLATFORM a\n");
    let host = Platform::host();
    let constant = format!("{}/{}", host.os, host.architecture);
    one(
        &format!("FROM --platform={constant} a AS tool\n"),
        Rule::FromPlatformFlagConstDisallowed,
        1,
        &format!("FROM --platform flag should not use constant value {constant:?}"),
    );
    silent(&format!(
        "FROM --platform={constant} a AS tool-{}\n",
        host.architecture
    ));
    one(
        "FROM foreign\n",
        Rule::InvalidBaseImagePlatform,
        1,
        &format!(
            "Base image foreign was pulled with platform \"{}/vax\", expected {:?} for current build",
            host.os,
            host.to_string()
        ),
    );
}

#[test]
fn commands_and_their_form() {
    for keyword in ["CMD", "ENTRYPOINT"] {
        one(
            &format!("FROM a\n{keyword} serve --all\n"),
            Rule::JSONArgsRecommended,
            2,
            &format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            ),
        );
        silent(&format!("FROM a\n{keyword} [\"serve\", \"--all\"]\n"));
        silent(&format!(
            "FROM a\nSHELL [\"/bin/bash\", \"-c\"]\n{keyword} serve\n"
        ));
        silent(&format!("FROM shelled\n{keyword} serve\n"));
        one(
            &format!("FROM a\n{keyword} [\"a\"]\n{keyword} [\"b\"]\n"),
            Rule::MultipleInstructionsDisallowed,
            2,
            &format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            ),
        );
        silent(&format!(
            "FROM a AS x\n{keyword} [\"a\"]\nFROM x\n{keyword} [\"b\"]\n"
        ));
    }
    let checks = "FROM a\nHEALTHCHECK CMD a\nHEALTHCHECK CMD b\n";
    assert_eq!(said(checks)[0].0, Rule::MultipleInstructionsDisallowed);
    silent("FROM a\nHEALTHCHECK --interval=1s \\\n  CMD a\nCMD [\"b\"]\n");
    one(
        "FROM a\nMAINTAINER someone\n",
        Rule::MaintainerDeprecated,
        2,
        "Maintainer instruction is deprecated in favor of using label",
    );
    one(
        "FROM a\nRUN a \\\n\n  b\nRUN c\n",
        Rule::NoEmptyContinuation,
        4,
        "Empty continuation line",
    );
    silent("FROM a\nRUN a \\\n  # why\n  b\n");
}

#[test]
fn pairs_without_equals_and_secrets_in_names() {
    for keyword in ["ENV", "LABEL"] {
        one(
            &format!("FROM a\n{keyword} colour deep red\n"),
            Rule::LegacyKeyValueFormat,
            2,
            &format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            ),
        );
        silent(&format!("FROM a\n{keyword} colour=\"deep red\"\n"));
    }
    for name in ["DB_PASSWORD", "token", "Api_Key", "my_secret_name", "auth"] {
        one(
            &format!("FROM a\nARG {name}\n"),
            Rule::SecretsUsedInArgOrEnv,
            2,
            &format!("Do not use ARG or ENV instructions for sensitive data (ARG {name:?})"),
        );
        one(
            &format!("FROM a\nENV {name}=x\n"),
            Rule::SecretsUsedInArgOrEnv,
            2,
            &format!("Do not use ARG or ENV instructions for sensitive data (ENV {name:?})"),
        );
    }
    silent("FROM a\nENV PUBLIC_KEY=a PASSWORD_FILE=b TOKEN_VERSION=c KEYBOARD=d AUTHOR=e\n");
    silent("FROM a\nRUN --mount=type=secret,id=key,env=DB_PASSWORD use\n");
}

#[test]
fn variables_are_defined_before_they_are_used() {
    let rule = Rule::UndefinedVar;
    one(
        "FROM a\nCOPY $dir /x\n",
        rule,
        2,
        "Usage of undefined variable '$dir'",
    );
    one(
        "FROM a\nENV PATH=/x:$PAHT\n",
        rule,
        2,
        "Usage of undefined variable '$PAHT' (did you mean $PATH?)",
    );
    one("FROM a\nARG b=$c\n", rule, 2, "Usage of undefined variable '$c'");
    one(
        "FROM a\nCOPY <<E /x\n$d\nE\n",
        rule,
        2,
        "Usage of undefined variable '$d'",
    );
    one(
        "FROM a\nRUN --mount=target=/$e true\n",
        rule,
        2,
        "Usage of undefined variable '$e'",
    );
    // Of the line's own beginning nothing is defined yet.
    one(
        "FROM a\nENV f=1 g=$f\n",
        rule,
        2,
        "Usage of undefined variable '$f'",
    );
    silent("FROM a\nARG dir\nCOPY $dir /x\n");
    silent("FROM a\nENV h=1\nENV i=$h $GREETING=x\n");
    silent("FROM a AS x\nENV j=1\nFROM x\nWORKDIR /$j\n");
    silent("FROM a\nCOPY <<'E' /x\n$d\nE\n");
    silent("FROM a\nRUN echo $k\n");
    // What an unknown base defines is not known.
    silent("FROM unknown\nENV l=$m\n");
}

#[test]
fn working_directories_and_ports() {
    one(
        "FROM a\nWORKDIR srv/www\nWORKDIR b\n",
        Rule::WorkdirRelativePath,
        2,
        "Relative workdir \"srv/www\" can have unexpected results if the base image changes",
    );
    silent("FROM a\nWORKDIR /srv\nWORKDIR www\n");
    silent("FROM a AS x\nWORKDIR /srv\nFROM x\nWORKDIR www\n");
    one(
        "FROM a\nEXPOSE 80/TcP\n",
        Rule::ExposeProtoCasing,
        2,
        "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
    );
    silent("FROM a\nEXPOSE 80/tcp 81\n");
    for port in ["127.0.0.1:80:80", "80:80", "[::1]:80:80/udp"] {
        one(
            &format!("FROM a\nEXPOSE {port}\n"),
            Rule::ExposeInvalidFormat,
            2,
            &format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            ),
        );
    }
}

#[test]
fn files_that_are_left_out_are_not_copied() {
    let said = |text: &str, ignore: &str| -> Vec<String> {
        let found = checked(&Request::new(text), Some(ignore)).warnings;
        found
            .into_iter()
            .map(|warning| {
                assert_eq!(warning.rule, Rule::CopyIgnoredFile);
                warning.detail
            })
            .collect()
    };
    let sentence = |verb: &str, file: &str| {
        vec![format!(
            "Attempting to {verb} file {file:?} that is excluded by .dockerignore"
        )]
    };
    assert_eq!(
        said("FROM a\nCOPY ./log/x /\n", "log\n"),
        sentence("Copy", "log/x")
    );
    assert_eq!(said("FROM a\nADD log/x y /\n", "log\n"), sentence("Add", "log/x"));
    assert_eq!(said("FROM a\nCOPY . /\n", "**\n"), sentence("Copy", "."));
    for (text, ignore) in [
        ("FROM a\nCOPY src /\n", "log\n"),
        ("FROM a\nCOPY . /\n", "log\n"),
        ("FROM a\nCOPY log/x /\n", "log\n!log/x\n"),
        ("FROM a AS b\nFROM a\nCOPY --from=b log /\n", "log\n"),
        ("FROM a\nADD https://example.test/log /\n", "https*\n"),
        ("FROM a\nCOPY <<log /x\nlog\n", "log\n"),
    ] {
        assert_eq!(said(text, ignore), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn descriptions_are_checked_only_when_asked_for() {
    let text = "# other words\nARG a=1\n# b is the stage\nFROM x AS b\n# any\nARG c d\n";
    silent(text);
    let rule = Rule::InvalidDefinitionDescription;
    let asked = format!("# check=experimental=all\n{text}");
    let wanted = [
        (
            rule,
            3,
            "Comment for ARG should follow the format: `# a <description>`".to_owned(),
        ),
        (
            rule,
            7,
            "Comment for ARG should follow the format: `# <arg_key> <description>`".to_owned(),
        ),
    ];
    assert_eq!(said(&asked), wanted);
}

#[test]
fn rules_can_be_skipped_for_the_file_and_for_one_instruction() {
    let bad = "FROM a\nMAINTAINER x\nCMD y\n";
    assert_eq!(said(bad).len(), 2);
    silent(&format!("# check=skip=all\n{bad}"));
    silent(&format!(
        "#!/usr/bin/x\n# check=skip=MaintainerDeprecated,JSONArgsRecommended\n{bad}"
    ));
    assert_eq!(said(&format!("# check=skip=JSONArgsRecommended\n{bad}")).len(), 1);
    silent("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER x\n# check=skip=all // why not\nCMD y\n");
    let mut request = Request::new(bad);
    request
        .build_args
        .insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "skip=all".to_owned());
    assert_eq!(checked(&request, None).warnings, []);
    assert!(dhow_dockerfile::parse("# check=colour=red\nFROM a\n").is_err());
}

#[test]
fn an_error_comes_with_the_warnings_before_it() {
    let findings = checked(&Request::new("FROM a\nMAINTAINER x\nENV b=${c?why}\n"), None);
    assert_eq!(findings.warnings.len(), 1);
    let trouble = findings.trouble.unwrap();
    assert_eq!(
        trouble
            .span
            .unwrap()
            .line_column("FROM a\nMAINTAINER x\nENV b=${c?why}\n")
            .0,
        3
    );
}

#[test]
fn every_rule_has_a_page_but_one_and_a_name_of_its_own() {
    let names: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), 22);
    assert_eq!(Rule::ALL.iter().filter(|rule| rule.url().is_none()).count(), 1);
    assert_eq!(
        Rule::JSONArgsRecommended.url().unwrap(),
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    );
    assert_eq!(
        Rule::SecretsUsedInArgOrEnv.url().unwrap(),
        "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/"
    );
}

#[test]
fn an_outline_names_what_the_target_and_its_sources_use() {
    let text = "# V is the version\nARG V=1\nARG UNUSED=2\nARG BASE=a:$V\nFROM $BASE AS maker\nARG M\n\
                RUN --mount=type=secret,id=s,required --mount=type=ssh true\nFROM b AS other\nARG OTHER\n\
                # out is what ships\nFROM c AS out\n# N how many\nARG N=3\nCOPY --from=maker /x /x\n";
    let file = dhow_dockerfile::parse(text).unwrap();
    let request = Request::new(text);
    let around = Around {
        file: &file,
        request: &request,
        base: &base,
        ignore: None,
        reached: None,
    };
    let found = outline(&around).unwrap();
    assert_eq!(found.name.as_deref(), Some("out"));
    assert_eq!(found.description, "is what ships");
    let args: Vec<(&str, &str, &str)> = found
        .args
        .iter()
        .map(|p| (p.name.as_str(), p.value.as_str(), p.description.as_str()))
        .collect();
    assert_eq!(
        args,
        [
            ("V", "1", "is the version"),
            ("BASE", "a:1", ""),
            ("M", "", ""),
            ("N", "3", "how many")
        ]
    );
    assert_eq!(found.secrets.len(), 1);
    assert_eq!(
        (found.secrets[0].name.as_str(), found.secrets[0].required),
        ("s", true)
    );
    assert_eq!(
        (found.ssh[0].name.as_str(), found.ssh[0].required),
        ("default", false)
    );
    let all = targets(&file);
    let shown: Vec<(Option<&str>, bool, &str)> = all
        .iter()
        .map(|target| (target.name.as_deref(), target.default, target.base.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (Some("maker"), false, "$BASE"),
            (Some("other"), false, "b"),
            (Some("out"), true, "c")
        ]
    );
}

/// Pieces of Dockerfiles, good and bad.
const PIECES: [&str; 24] = [
    "FROM a AS b\n",
    "FROM $x AS Y\n",
    "FROM b\n",
    "FROM --platform=$TARGETPLATFORM a\n",
    "FROM --platform=${y:-linux/arm64} a as Z\n",
    "ARG x\n",
    "ARG x=${y:?no} y=1\n",
    "# check=skip=all\n",
    "# x is\n",
    "ENV a $b\n",
    "ENV a=${a##*} PASSWORD=\n",
    "LABEL a b\n",
    "COPY --from=b . /$c/\n",
    "COPY <<E /x\n$d\nE\n",
    "ADD https://a.test/b.git#c /x\n",
    "RUN --mount=type=cache,target=$e,from=b true\n",
    "RUN --mount=type=ssh \\\n\n true\n",
    "EXPOSE 1:2:$x/TCP 3-\n",
    "WORKDIR $x\n",
    "CMD a\n",
    "entrypoint [\"a\"]\n",
    "HEALTHCHECK NONE\n",
    "ONBUILD COPY --from=b a b\n",
    "SHELL [\"a\"]\n",
];

proptest::proptest! {
    #[test]
    fn whatever_the_text_is_it_is_checked_to_its_end(pieces in proptest::collection::vec(0..PIECES.len(), 0..24)) {
        let text: String = pieces.iter().map(|piece| PIECES[*piece]).collect();
        let request = Request::new(&*text);
        let (file, errors) = dhow_dockerfile::parse_some(&text);
        let choice = Choice::new(&file, &request).unwrap();
        let end = dhow_dockerfile::Span::new(text.len(), text.len());
        for warning in lines_before(&file, &choice, end) {
            proptest::prop_assert!(warning.at.end <= text.len());
        }
        if errors.is_empty() {
            let around = Around { file: &file, request: &request, base: &base, ignore: None, reached: None };
            for warning in check(&around, &choice).warnings {
                proptest::prop_assert!(warning.at.start <= warning.at.end && warning.at.end <= text.len());
            }
            drop(outline(&around));
            drop(targets(&file));
        }
    }
}
