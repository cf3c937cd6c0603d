use proptest::prelude::*;

use super::reader;

fn read(name: &str, text: &str) -> Vec<String> {
    let said = reader(name.as_bytes()).unwrap()(name, text.as_bytes()).unwrap();
    let line = |package: crate::Package| format!("{} {}", package.name, package.version);
    said.packages.into_iter().map(line).collect()
}

#[test]
fn tables_are_read_without_what_is_the_trees_own() {
    let cargo = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n\
        source = \"registry+https://github.com/rust-lang/crates.io-index\"\ndependencies = [\n \"x 1\",\n]\n";
    assert_eq!(read("Cargo.lock", cargo), ["serde 1.0.1"]);
    let uv = "[[package]]\nname = \"app\"\nversion = \"1\"\nsource = { virtual = \".\" }\n\n[[package]]\nname = \"click\"\nversion = \"8.1.3\"\n\
        source = { registry = \"https://pypi.org/simple\" }\nwheels = [\n    { url = \"x\" },\n]\n[package.metadata]\nname = \"no\"\n";
    assert_eq!(read("uv.lock", uv), ["click 8.1.3"]);
    let poetry = "[[package]]\nname = \"a\"\nversion = \"1\"\ncategory = \"main\"\n[[package]]\nname = \"b\"\nversion = \"2\"\ncategory = \"dev\"\n";
    assert_eq!(read("poetry.lock", poetry), ["a 1"]);
    let pylock = "lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\nversion = \"1\"\n[[packages.wheels]]\nname = \"a-1.whl\"\n";
    assert_eq!(read("pylock.toml", pylock), ["a 1"]);
}

#[test]
fn node_packages_are_read_without_what_is_for_development() {
    let three = r#"{"lockfileVersion":3,"packages":{"":{"name":"app","version":"1"},"node_modules/@s/a":{"version":"1.0.0"},
        "node_modules/b/node_modules/c":{"version":"2.0.0"},"node_modules/d":{"version":"3","dev":true},"node_modules/e":{"link":true,"version":"1"}}}"#;
    assert_eq!(read("package-lock.json", three), ["@s/a 1.0.0", "c 2.0.0"]);
    let one = r#"{"dependencies":{"a":{"version":"1.0.0","dependencies":{"b":{"version":"2.0.0"}}},"c":{"version":"3","dev":true}}}"#;
    assert_eq!(read("package-lock.json", one), ["a 1.0.0", "b 2.0.0"]);
    let yarn = "# yarn lockfile v1\n\n\"@s/a@^1.0.0\", \"@s/a@~1.0\":\n  version \"1.0.1\"\n  dependencies:\n    b \"1\"\n\nb@1:\n  version \"1.2.3\"\n";
    assert_eq!(read("yarn.lock", yarn), ["@s/a 1.0.1", "b 1.2.3"]);
    let berry = "__metadata:\n  version: 6\n\n\"b@npm:^1\":\n  version: 1.2.3\n  resolution: \"b@npm:1.2.3\"\n\n\"app@workspace:.\":\n  version: 0.0.0\n";
    assert_eq!(read("yarn.lock", berry), ["b 1.2.3"]);
    let pnpm = "lockfileVersion: '6.0'\ndependencies:\n  a:\n    version: 1\n\npackages:\n\n  /@s/a@1.0.0(react@17.0.0):\n    resolution: {}\n    dev: false\n\n\
        \x20 /b/2.0.0_peer@1:\n    dev: true\n\n  'c@3.0.0':\n    engines: {node: '>=1'}\n\nsnapshots:\n  d@4.0.0: {}\n";
    assert_eq!(read("pnpm-lock.yaml", pnpm), ["@s/a 1.0.0", "c 3.0.0"]);
    let bun = "{\n  \"workspaces\": {\n    \"\": {},\n  },\n  \"packages\": {\n    \"@s/a\": [\"@s/a@1.0.0\", \"\", {}, \"sha512-x\"],\n\n    \"b\": [\"b@workspace:x\"],\n  }\n}\n";
    assert_eq!(read("bun.lock", bun), ["@s/a 1.0.0"]);
}

#[test]
fn a_project_of_mavens_says_what_it_asks_for_itself() {
    let pom = r#"<?xml version="1.0"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <parent><groupId>org.parent</groupId><artifactId>p</artifactId><version>7</version></parent>
  <artifactId>app</artifactId>
  <!-- <dependencies><dependency><groupId>no</groupId></dependency></dependencies> -->
  <properties><log4j.version>2.14.1</log4j.version><alias>${log4j.version}</alias><loop>${loop}</loop></properties>
  <dependencyManagement><dependencies>
    <dependency><groupId>b</groupId><artifactId>managed</artifactId><version>1.5</version></dependency>
    <dependency><groupId>b</groupId><artifactId>tests</artifactId><version>1</version><scope>test</scope></dependency>
  </dependencies></dependencyManagement>
  <dependencies>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>${alias}</version>
      <exclusions><exclusion><groupId>x</groupId><artifactId>y</artifactId></exclusion></exclusions></dependency>
    <dependency><groupId>b</groupId><artifactId>managed</artifactId></dependency>
    <dependency><groupId>b</groupId><artifactId>tests</artifactId></dependency>
    <dependency><groupId>${project.groupId}</groupId><artifactId>sibling</artifactId><version>${project.version}</version></dependency>
    <dependency><groupId>c</groupId><artifactId>exact</artifactId><version>[3.1]</version><scope>runtime</scope></dependency>
    <dependency><groupId>c</groupId><artifactId>range</artifactId><version>[3,4)</version></dependency>
    <dependency><groupId>c</groupId><artifactId>looped</artifactId><version>${loop}</version></dependency>
    <dependency><groupId>c</groupId><artifactId>unknown</artifactId><version>${elsewhere}</version></dependency>
    <dependency><groupId>c</groupId><artifactId>given</artifactId><version>1</version><scope>provided</scope></dependency>
  </dependencies>
  <build><plugins><plugin><dependencies><dependency><groupId>d</groupId><artifactId>tool</artifactId><version>1</version></dependency></dependencies></plugin></plugins></build>
</project>"#;
    assert_eq!(
        read("pom.xml", pom),
        [
            "b:managed 1.5",
            "c:exact 3.1",
            "org.apache.logging.log4j:log4j-core 2.14.1",
            "org.parent:sibling 7"
        ]
    );
    let pom = |text: &str| reader(b"pom.xml").unwrap()("pom.xml", text.as_bytes());
    assert!(pom("<project/>").unwrap().packages.is_empty());
    for bad in ["", "<a>", "<project></a>", "<project", &"<project>".repeat(100)] {
        assert!(pom(bad).is_err(), "{bad}");
    }
    // What stands for ever more of itself has an end.
    let bomb: String = (0..8)
        .map(|n| format!("<p{n}>{}</p{n}>", format!("${{p{}}}", n + 1).repeat(100)))
        .collect();
    let text = format!(
        "<project><properties>{bomb}</properties><dependencies><dependency><groupId>a</groupId><artifactId>b</artifactId>\
         <version>${{p0}}</version></dependency></dependencies></project>"
    );
    assert!(pom(&text).unwrap().packages.is_empty());
}

#[test]
fn the_others_are_read() {
    let go = "module x\n\ngo 1.17\n\nrequire (\n\ta.b/c v1.0.0\n\td.e/f v2.0.0 // indirect\n\tg.h/i v1.0.0\n)\nrequire j.k/l v0.1.0\n\
        replace d.e/f => n.o/p v3.0.0\nreplace (\n\tg.h/i v1.0.0 => ../i\n)\n";
    assert_eq!(
        read("go.mod", go),
        ["a.b/c v1.0.0", "j.k/l v0.1.0", "n.o/p v3.0.0"]
    );
    let gem = "GEM\n  remote: https://rubygems.org/\n  specs:\n    rack (2.2.3)\n      x (~> 1)\n    nokogiri (1.13.0-x86_64-linux)\n\nPLATFORMS\n  ruby\n";
    assert_eq!(read("Gemfile.lock", gem), ["nokogiri 1.13.0", "rack 2.2.3"]);
    let pipfile =
        r#"{"default":{"a":{"version":"==1.0"},"b":{"git":"x"}},"develop":{"c":{"version":"==1"}}}"#;
    assert_eq!(read("Pipfile.lock", pipfile), ["a 1.0"]);
    let requirements =
        "# x\nA==1.0 ; python_version > '3'\nb[c] == 2.0 \\\n    --hash=sha256:00\nd>=1\n-r other.txt\n";
    assert_eq!(read("requirements-dev.txt", requirements), ["A 1.0", "b 2.0"]);
    assert_eq!(
        read(
            "composer.lock",
            r#"{"packages":[{"name":"a/b","version":"v1.0"}],"packages-dev":[{"name":"c/d","version":"1"}]}"#
        ),
        ["a/b 1.0"]
    );
    assert_eq!(
        read("gradle.lockfile", "# x\na.b:c:1.0=x,y\nempty=\n"),
        ["a.b:c 1.0"]
    );
    assert_eq!(
        read(
            "build.sbt.lock",
            r#"{"dependencies":[{"org":"a","name":"b","version":"1","configurations":["compile","test"]},
            {"org":"c","name":"d","version":"1","configurations":["test"]}]}"#
        ),
        ["a:b 1"]
    );
    assert_eq!(
        read(
            "packages.lock.json",
            r#"{"dependencies":{"net6":{"A":{"type":"Direct","resolved":"1.0"},"b":{"type":"Project"}}}}"#
        ),
        ["A 1.0"]
    );
    assert_eq!(
        read(
            "Directory.Packages.props",
            "<Project><PackageVersion Include=\"A\" Version=\"1\" /><PackageVersion Include=\"B\" Version=\"$(V)\"/>"
        ),
        ["A 1"]
    );
    assert!(reader(b"composer.lock").unwrap()("x", b"{}").is_err() && reader(b"lock").is_none());
}

proptest! {
    #[test]
    fn no_text_stops_a_reader(text in "\\PC{0,200}", lines in "([a-z@/=:\"' ()\\[\\]{}.0-9-]{0,20}\n){0,12}") {
        for name in ["Cargo.lock", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "poetry.lock", "pylock.toml", "Pipfile.lock", "Gemfile.lock",
            "composer.lock", "go.mod", "gradle.lockfile", "build.sbt.lock", "pom.xml", "packages.lock.json", "Directory.Packages.props", "requirements.txt"]
        {
            let parse = reader(name.as_bytes()).unwrap();
            for text in [&text, &lines, &format!("packages:\n  /{text}:\n  \"packages\": {{\n{lines}"), &format!("{{\"dependencies\":{{\"a\":{{\"version\":\"{lines}\"}}}}}}")] {
                drop(parse(name, text.as_bytes()));
            }
        }
        let deep = format!("{}{}", "{\"dependencies\":{\"a\":".repeat(50), "1}}".repeat(50));
        drop(reader(b"package-lock.json").unwrap()("x", deep.as_bytes()));
    }
}
