use std::path::Path;

use dhow_quadlet::{Outcome, Target, UnitFile, convert};

fn converted(files: &[(&str, &str)]) -> Outcome {
    let files: Vec<UnitFile> = files
        .iter()
        .map(|(name, text)| UnitFile::parse(name, &format!("/etc/containers/systemd/{name}"), text).unwrap())
        .collect();
    let target = Target {
        program: "/usr/bin/podman",
        user: false,
        exists: &|path| path == Path::new("/dev/null"),
    };
    convert(&files, target)
}

fn text(outcome: &Outcome, name: &str) -> String {
    let service = outcome.services.iter().find(|service| service.name == name);
    service
        .unwrap_or_else(|| panic!("no {name} in {outcome:?}"))
        .text
        .clone()
}

#[test]
fn a_container_is_a_service_that_runs_it_and_takes_it_away() {
    let outcome = converted(&[(
        "web.container",
        "[Unit]\nDescription=Web\n\n[Container]\nImage=quay.io/a/b:1\nExec=serve \"two words\"\nPublishPort=8080:80\n\
         Environment=A=1 \"B=x y\"\nAddDevice=-/dev/null\nAddDevice=-/dev/nothing\n\n[Install]\nWantedBy=default.target\n",
    )]);
    assert_eq!(outcome.failures, Vec::<String>::new());
    let service = text(&outcome, "web.service");
    for line in [
        "[X-Container]\n",
        "Wants=network-online.target\n",
        "SourcePath=/etc/containers/systemd/web.container\n",
        "ExecStop=/usr/bin/podman rm -v -f -i systemd-%N\n",
        "ExecStopPost=-/usr/bin/podman rm -v -f -i systemd-%N\n",
        "ExecStart=/usr/bin/podman run --name systemd-%N --replace --rm --cgroups=split --sdnotify=conmon -d \
         --device /dev/null --publish 8080:80 --env A=1 --env \"B=x\\x20y\" quay.io/a/b:1 serve \"two\\x20words\"\n",
        "Type=notify\n",
        "KillMode=mixed\n",
        "Delegate=yes\n",
    ] {
        assert!(service.contains(line), "{line:?} is not in\n{service}");
    }
    let links = &outcome.services[0].links;
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].0, Path::new("default.target.wants/web.service"));
    assert_eq!(links[0].1, Path::new("../web.service"));
}

#[test]
fn files_name_each_other() {
    let outcome = converted(&[
        ("app.pod", "[Pod]\nNetwork=net.network:ip=10.0.0.2\n"),
        (
            "web.container",
            "[Unit]\nAfter=data.volume\n[Container]\nImage=img.build\nVolume=data.volume:/d:ro\nPod=app.pod\n",
        ),
        (
            "data.volume",
            "[Volume]\nVolumeName=data\nUser=7\nOptions=noatime\n",
        ),
        ("net.network", "[Network]\nSubnet=10.0.0.0/24\nGateway=10.0.0.1\n"),
        (
            "img.build",
            "[Build]\nImageTag=localhost/img\nSetWorkingDirectory=unit\n",
        ),
    ]);
    assert_eq!(outcome.failures, Vec::<String>::new());
    let web = text(&outcome, "web.service");
    assert!(web.contains("After=data-volume.service\n"), "{web}");
    assert!(web.contains("BindsTo=app-pod.service\n"), "{web}");
    assert!(
        web.contains(" -v data:/d:ro --pod systemd-app localhost/img\n"),
        "{web}"
    );
    let pod = text(&outcome, "app-pod.service");
    assert!(pod.contains("Wants=web.service\n"), "{pod}");
    assert!(pod.contains("--network systemd-net:ip=10.0.0.2"), "{pod}");
    assert!(text(&outcome, "data-volume.service").contains("--opt o=uid=7,noatime data\n"));
    assert!(
        text(&outcome, "net-network.service")
            .contains("--subnet 10.0.0.0/24 --gateway 10.0.0.1 systemd-net\n")
    );
    let build = text(&outcome, "img-build.service");
    assert!(
        build.contains("WorkingDirectory=/etc/containers/systemd\n"),
        "{build}"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_the_others_are_made() {
    let outcome = converted(&[
        ("a.container", "[Container]\nImage=quay.io/a/b\nColour=red\n"),
        ("b.container", "[Container]\nExec=x\n"),
        ("c.container", "[Container]\nImage=quay.io/a/b\nPod=none.pod\n"),
        ("d.volume", "[Volume]\n"),
    ]);
    assert_eq!(
        outcome.failures,
        [
            "converting \"a.container\": unsupported key 'Colour' in group 'Container' in /etc/containers/systemd/a.container",
            "converting \"b.container\": no Image or Rootfs key specified",
            "converting \"c.container\": quadlet pod unit none.pod does not exist",
        ]
    );
    assert_eq!(outcome.services.len(), 1);
}

#[test]
fn templates_are_started_by_their_default_instance() {
    let file =
        "[Container]\nImage=quay.io/a/b\n[Install]\nWantedBy=x.target ../y.target\nDefaultInstance=one\n";
    let outcome = converted(&[("t@.container", file)]);
    let service = &outcome.services[0];
    assert_eq!(service.name, "t@.service");
    assert_eq!(service.links.len(), 1);
    assert_eq!(service.links[0].0, Path::new("x.target.wants/t@one.service"));
    assert_eq!(service.links[0].1, Path::new("../t@.service"));
    assert!(service.text.contains("--name systemd-%p_%i"));
}

#[test]
fn what_only_podman_does_is_converted_with_a_warning() {
    let outcome = converted(&[("app.kube", "[Kube]\nYaml=app.yml\n")]);
    assert!(
        text(&outcome, "app.service")
            .contains("kube play --replace --service-container=true /etc/containers/systemd/app.yml")
    );
    assert!(
        outcome.warnings[0].contains("no kube play"),
        "{:?}",
        outcome.warnings
    );
}
