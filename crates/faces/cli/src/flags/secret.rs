//! `--secret NAME[,type=mount|env][,target=...][,uid=...][,gid=...][,mode=...]` (podman-run(1)).

use dhow_engine::container::{SecretSpec, SecretUse};

use crate::CliError;

/// Reads one flag.
pub(crate) fn parse(text: &str) -> Result<SecretSpec, CliError> {
    let wrong = |why: &str| {
        CliError::plain(format!("invalid secret {text:?}: {why}"))
            .with_code(125)
            .with_hint("write NAME, or NAME,type=mount|env,target=TEXT,uid=N,gid=N,mode=OCTAL")
    };
    let mut parts = text.split(',');
    let mut secret = parts.next().unwrap_or_default().to_owned();
    let (mut kind, mut target) = ("mount", None);
    let (mut uid, mut gid, mut mode) = (None, None, None);
    for (place, part) in std::iter::once(secret.clone())
        .chain(parts.map(str::to_owned))
        .enumerate()
    {
        let Some((name, value)) = part.split_once('=') else {
            if place == 0 {
                continue;
            }
            return Err(wrong(&format!("{part:?} has no value")));
        };
        let number = |value: &str, radix| {
            u32::from_str_radix(value, radix).map_err(|_| wrong(&format!("{name}={value} is no number")))
        };
        match name {
            // The name may be said so, too.
            "source" | "id" if place == 0 => secret = value.to_owned(),
            "type" if value == "mount" => kind = "mount",
            "type" if value == "env" => kind = "env",
            "target" | "destination" | "dst" => target = Some(value.to_owned()),
            "uid" => uid = Some(number(value, 10)?),
            "gid" => gid = Some(number(value, 10)?),
            "mode" => mode = Some(number(value, 8)?).filter(|mode| *mode <= 0o7777),
            _ => return Err(wrong(&format!("{part:?} is none of its options"))),
        }
    }
    if secret.is_empty() {
        return Err(wrong("it has no name"));
    }
    let how = if kind == "env" {
        if uid.is_some() || gid.is_some() || mode.is_some() {
            return Err(wrong("a variable has no owner and no mode"));
        }
        SecretUse::Env { target }
    } else {
        SecretUse::Mount {
            target: target.map(Into::into),
            uid: uid.unwrap_or(0),
            gid: gid.unwrap_or(0),
            mode: mode.unwrap_or(0o444),
        }
    };
    Ok(SecretSpec { secret, how })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_unless_it_is_a_variable() {
        let file = |target: Option<&str>, uid, gid, mode| SecretUse::Mount {
            target: target.map(Into::into),
            uid,
            gid,
            mode,
        };
        assert_eq!(parse("key").unwrap().how, file(None, 0, 0, 0o444));
        let whole = parse("source=key,target=/etc/key,uid=5,gid=6,mode=0400").unwrap();
        assert_eq!(
            (whole.secret.as_str(), whole.how),
            ("key", file(Some("/etc/key"), 5, 6, 0o400))
        );
        let env = parse("key,type=env,target=TOKEN").unwrap();
        assert_eq!(
            env.how,
            SecretUse::Env {
                target: Some("TOKEN".to_owned())
            }
        );
        for bad in [
            "",
            "key,type=x",
            "key,mode=9",
            "key,colour=red",
            "key,uid",
            "key,type=env,uid=1",
            ",type=env",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
