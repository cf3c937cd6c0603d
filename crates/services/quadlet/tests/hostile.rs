use dhow_quadlet::{Target, UnitFile, convert};
use proptest::prelude::*;

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_what_is_read_is_written_the_same(text in "[\\[\\]A-Za-z=\\\\\"' %@:.#;\\n]{0,200}") {
        let Ok(file) = UnitFile::parse("x.container", "/x.container", &text) else { return Ok(()); };
        let again = UnitFile::parse("x.container", "/x.container", &file.text_of_all()).unwrap();
        prop_assert_eq!(again.text_of_all(), file.text_of_all());
    }

    #[test]
    fn links_never_leave_the_folder(alias in "[a-z./@]{0,20}", wanted in "[a-z./@]{0,20}") {
        let text = format!("[Container]\nImage=quay.io/a/b\n[Install]\nAlias={alias}\nWantedBy={wanted}\n");
        let file = UnitFile::parse("x.container", "/x.container", &text).unwrap();
        let target = Target { program: "podman", user: true, exists: &|_| false };
        for service in convert(&[file], target).services {
            for (place, _) in service.links {
                let inside = place.components().all(|part| matches!(part, std::path::Component::Normal(_)));
                prop_assert!(inside, "{}", place.display());
            }
        }
    }
}
