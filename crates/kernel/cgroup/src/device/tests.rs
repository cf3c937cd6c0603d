use proptest::prelude::*;

use super::*;

/// Runs a program as the kernel would: just the operations that the encoder uses; anything else fails the test.
fn run(program: &[u64], kind: i32, asked: i32, major: u32, minor: u32) -> bool {
    let context = [(asked << 16 | kind).cast_unsigned(), major, minor];
    let mut registers = [0_u64; 11];
    let mut at = 0_usize;
    for _ in 0..10_000 {
        let word = program[at];
        let code = (word & 0xff) as u8;
        let (target, source) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
        let offset = (word >> 16 & 0xffff) as u16 as i16;
        let immediate = i64::from((word >> 32) as u32 as i32).cast_unsigned();
        at += 1;
        match code {
            LOAD_WORD => registers[target] = u64::from(context[offset as usize / 4]),
            MOVE_IMMEDIATE => registers[target] = immediate,
            MOVE_REGISTER => registers[target] = registers[source],
            AND_IMMEDIATE => registers[target] &= immediate,
            SHIFT_RIGHT => registers[target] >>= immediate,
            JUMP_EQUAL if registers[target] == immediate => at += offset as usize,
            JUMP_NOT_EQUAL if registers[target] != immediate => at += offset as usize,
            JUMP_EQUAL | JUMP_NOT_EQUAL => {}
            EXIT => return registers[0] == 1,
            other => panic!("operation {other:#x}"),
        }
    }
    panic!("the program does not end");
}

/// What the rules say, one access at a time.
fn naive(rules: &[Access], kind: DeviceKind, asked: i32, major: u32, minor: u32) -> bool {
    [MKNOD, READ, WRITE]
        .into_iter()
        .filter(|bit| asked & bit != 0)
        .all(|bit| {
            rules
                .iter()
                .rev()
                .find(|rule| {
                    rule.kind.is_none_or(|wanted| wanted == kind)
                        && rule.major.is_none_or(|wanted| wanted == major)
                        && rule.minor.is_none_or(|wanted| wanted == minor)
                        && match bit {
                            MKNOD => rule.mknod,
                            READ => rule.read,
                            _ => rule.write,
                        }
                })
                .is_some_and(|rule| rule.allow)
        })
}

fn rule() -> impl Strategy<Value = Access> {
    let number = || prop_oneof![Just(None), (0_u32..3).prop_map(Some), Just(Some(u32::MAX))];
    let kind = prop_oneof![
        Just(None),
        Just(Some(DeviceKind::Block)),
        Just(Some(DeviceKind::Char))
    ];
    (any::<bool>(), kind, number(), number(), 1_u8..8).prop_map(|(allow, kind, major, minor, bits)| Access {
        allow,
        kind,
        major,
        minor,
        read: bits & 1 != 0,
        write: bits & 2 != 0,
        mknod: bits & 4 != 0,
    })
}

proptest! {
    #[test]
    fn the_program_decides_as_the_rules_do(
        rules in prop::collection::vec(rule(), 0..12),
        char_device in any::<bool>(),
        asked in 1_i32..8,
        major in 0_u32..3,
        minor in 0_u32..3,
    ) {
        let (kind, number) = if char_device { (DeviceKind::Char, CHAR) } else { (DeviceKind::Block, BLOCK) };
        let program = encode(&rules).unwrap();
        prop_assert_eq!(run(&program, number, asked, major, minor), naive(&rules, kind, asked, major, minor));
    }
}

#[test]
fn too_many_rules_are_refused() {
    let rule = Access {
        allow: true,
        kind: None,
        major: Some(1),
        minor: Some(3),
        read: true,
        write: false,
        mknod: false,
    };
    assert_eq!(
        encode(&vec![rule; 1000]).unwrap_err().kind(),
        ErrorKind::ResourceExhausted
    );
}

#[test]
fn an_empty_list_allows_nothing() {
    assert!(!run(&encode(&[]).unwrap(), CHAR, READ, 1, 3));
}

#[test]
fn the_kernel_takes_the_program_of_dockers_rules() {
    let everything = Access {
        allow: false,
        kind: None,
        major: None,
        minor: None,
        read: true,
        write: true,
        mknod: true,
    };
    let mut rules = vec![everything];
    for (major, minor) in [(1, 3), (1, 5), (5, 0), (5, 2), (136, u32::MAX)] {
        let minor = (minor != u32::MAX).then_some(minor);
        let kind = Some(DeviceKind::Char);
        rules.push(Access {
            allow: true,
            kind,
            major: Some(major),
            minor,
            ..everything
        });
    }
    rules.push(Access {
        allow: true,
        kind: Some(DeviceKind::Block),
        read: false,
        write: false,
        ..everything
    });
    match bpf::load_device_filter(&encode(&rules).unwrap()) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => println!("skipped: {error}"),
        outcome => drop(outcome.unwrap()),
    }
}
