use dhow_oci::RunConfig;

/// The program and its arguments: docker's rules for joining image and person (moby `merge`). An entrypoint of the
/// person puts the image's `CMD` aside; an entrypoint that is one empty string (`--entrypoint ""`) clears both; an
/// empty list (API) clears the entrypoint alone.
#[must_use]
pub fn command(image: &RunConfig, entrypoint: Option<&[String]>, cmd: &[String]) -> Vec<String> {
    let of_image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let arguments = if cmd.is_empty() && entrypoint.is_none_or(<[String]>::is_empty) {
        of_image(&image.cmd)
    } else {
        cmd.to_vec()
    };
    let mut out = entrypoint.map_or_else(|| of_image(&image.entrypoint), <[String]>::to_vec);
    if out == [""] {
        out.clear();
    }
    out.extend(arguments);
    out
}

/// The environment in docker's order: the person's, then what the image has besides. A later entry of the person
/// takes the place of an earlier one; a name without `=` removes the image's variable. Entries of an image without
/// a name or `=` are dropped (CVE-2026-57231: such an entry must not mean "take the host's").
#[must_use]
pub fn merge_env(image: &[String], person: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(image.len() + person.len());
    for entry in person {
        put(&mut out, entry);
    }
    let named = |name: &str| person.iter().any(|entry| name_of(entry) == name);
    for entry in image {
        let name = name_of(entry);
        if !name.is_empty() && entry.contains('=') && !named(name) {
            put(&mut out, entry);
        }
    }
    out.retain(|entry| entry.contains('='));
    out
}

/// Name of `NAME=value`.
pub(crate) fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// Puts an entry in place of the one with the same name, or at the end.
pub(crate) fn put(list: &mut Vec<String>, entry: &str) {
    match list.iter_mut().find(|other| name_of(other) == name_of(entry)) {
        Some(other) => entry.clone_into(other),
        None => list.push(entry.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entrypoint_and_command_join_as_docker_joins_them() {
        let image = RunConfig {
            entrypoint: Some(words("/entry -x")),
            cmd: Some(words("default args")),
            ..RunConfig::default()
        };
        let empty = vec![String::new()];
        let cases: [(Option<&[String]>, &str, &str); 7] = [
            (None, "", "/entry -x default args"),
            (None, "mine", "/entry -x mine"),
            (Some(&words("/other")), "", "/other"),
            (Some(&words("/other")), "mine", "/other mine"),
            (Some(&empty), "", ""),
            (Some(&empty), "mine too", "mine too"),
            (Some(&[]), "", "default args"),
        ];
        for (entrypoint, cmd, expected) in cases {
            assert_eq!(
                command(&image, entrypoint, &words(cmd)),
                words(expected),
                "{entrypoint:?} {cmd}"
            );
        }
        assert_eq!(command(&RunConfig::default(), None, &[]), Vec::<String>::new());
    }

    #[test]
    fn the_persons_environment_wins_and_broken_entries_of_an_image_vanish() {
        let image = words("PATH=/image A=1 HOME =x NOTHING");
        let person = words("B=2 A=3 B=4 PATH");
        assert_eq!(merge_env(&image, &person), words("B=4 A=3"));
        assert_eq!(merge_env(&image, &[]), words("PATH=/image A=1"));
    }
}
