//! Arguments and variables of builds.

use crate::recipe::Recipe;

#[test]
fn arguments_before_from_choose_the_base_and_may_demand_a_value() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "ARG tag=missing\nFROM busybox:${tag}\n";
    recipe.good(&["--build-arg", "tag=latest"], text);
    recipe.bad(&["--pull=never"], text, "busybox:missing");
    let text = "ARG NAME=${NAME:?\"give a name\"}\nFROM busybox\n";
    recipe.bad(&[], text, "NAME: give a name");
    recipe.good(&["--build-arg", "NAME=x"], text);
    let text = "FROM busybox\nARG ONE\nARG TWO=${ONE:?\"one is needed\"}\n";
    recipe.bad(&[], text, "ONE: one is needed");
    recipe.good(&["--build-arg", "ONE=1"], text);
    // A value from outside needs no default.
    recipe.good(&["--build-arg", "TWO=2"], text);
}

#[test]
fn several_arguments_stand_in_a_line_and_defaults_reach_stages() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.good(
        &[],
        "ARG one=\"a b\" two=box\nARG three=\"$two-x\"\nFROM busy$two\nARG three four=\"c d\" one\n\
         ARG five=\"v-$three\"\nRUN test \"$one:$three:$four:$five\" = 'a b:box-x:c d:v-box-x'\n",
    );
    let text = "ARG base=lazybox\nFROM busy${base#lazy}\nARG given\nENV given=\"is ${given:-unset}\"\n\
                ENV cut=\"${given%%t*}\"\nRUN echo \"$given|$cut\" > /out\nFROM scratch\nCOPY --from=0 /out /\n";
    for (flags, wanted) in [
        (&[][..], "is unset|is unse\n"),
        (&["--build-arg", "given="], "is unset|is unse\n"),
        (&["--build-arg", "given=set"], "is set|is se\n"),
    ] {
        recipe.output(flags, text).holds(&[("out", wanted)]);
    }
}

#[test]
fn the_stage_that_is_built_is_an_argument_for_who_asks() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "FROM busybox AS base\nRUN echo \"<$TARGETSTAGE>\" > /before\nARG TARGETSTAGE\n\
                RUN echo \"<$TARGETSTAGE>\" > /after\nFROM scratch AS first\nCOPY --from=base /before /after /\n\
                FROM scratch\nCOPY --from=base /before /after /\n";
    let of = |flags: &[&str], text: &str, wanted: &str| {
        recipe
            .output(flags, text)
            .holds(&[("before", "<>\n"), ("after", wanted)]);
    };
    of(&["--target", "first"], text, "<first>\n");
    of(&[], text, "<default>\n");
    let named = format!("{text}FROM scratch AS last\nCOPY --from=base /before /after /\n");
    of(&[], &named, "<last>\n");
}

#[test]
fn proxies_are_there_undeclared_and_change_no_key() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "FROM busybox\nARG GIVEN\nARG NOT_GIVEN\nARG DEFAULT=d\n\
                RUN echo \"$HTTP_PROXY|$NO_PROXY|$GIVEN|$NOT_GIVEN|$DEFAULT\" > /out\nFROM scratch\nCOPY --from=0 /out /\n";
    let of = |args: &[&str], wanted: &str| {
        let flags: Vec<&str> = args.iter().flat_map(|arg| ["--build-arg", arg]).collect();
        recipe.output(&flags, text).holds(&[("out", wanted)]);
    };
    of(&["GIVEN=1", "http_proxy=p", "NO_PROXY=n"], "p|n|1||d\n");
    // Another proxy is no reason to do it again; another argument is.
    of(&["GIVEN=1", "http_proxy=q"], "p|n|1||d\n");
    of(&["GIVEN=2", "http_proxy=q"], "q||2||d\n");
}

#[test]
fn an_empty_argument_is_a_variable_and_one_without_a_value_is_none() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.good(
        &[],
        "FROM busybox\nARG NONE\nARG EMPTY=\nENV mark a%sb\n\
         RUN env > /e && grep -q '^EMPTY=$' /e && ! grep -q '^NONE' /e && test \"$mark\" = a%sb\n",
    );
}

#[test]
fn a_platform_that_is_built_for_is_known_by_its_parts() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("one", "1"), ("two", "2")]);
    let text = "FROM scratch AS for-linux\nCOPY one /\nFROM for-${TARGETOS}\nCOPY two /\n";
    recipe.output(&[], text).holds(&[("one", "1"), ("two", "2")]);
    let text = "FROM --platform=$BUILDPLATFORM busybox AS maker\nARG TARGETPLATFORM\nARG TARGETOS\n\
                RUN echo \"$TARGETPLATFORM $TARGETOS\" > /out\nFROM scratch\nCOPY --from=maker /out /\n";
    // What it is built for need not be able to run anything, and may be no Linux at all.
    recipe
        .output(&["--platform", "linux/ppc64le"], text)
        .holds(&[("out", "linux/ppc64le linux\n")]);
    let flags = ["--platform", "darwin/ppc64le", "--build-arg", "TARGETOS=plan9"];
    recipe
        .output(&flags, text)
        .holds(&[("out", "darwin/ppc64le plan9\n")]);
}
