//! `locara check`: manifests.

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::{TestContext, repository};

/// Stems of the files with this ending in a folder of the repository, sorted.
fn stems(folder: &str, ending: &str) -> Vec<String> {
    let names =
        fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut stems: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect();
    stems.sort_unstable();
    stems
}

/// With a copy of the file in the working folder.
fn copy(context: &TestContext, folder: &str, name: &str) {
    fs::copy(repository(folder).join(name), context.path(name)).unwrap();
}

#[test]
fn good_manifests_pass() {
    let context = TestContext::new();
    let examples = stems("manifests/examples", ".json");
    assert!(examples.len() >= 5, "only {examples:?}");
    for stem in examples {
        let name = format!("{stem}.json");
        copy(&context, "manifests/examples", &name);
        let text = context.run(["check", &name]);
        text.assert_code(0);
        assert!(text.stdout.starts_with(&format!("{name} is a valid manifest: ")) && text.stderr.is_empty(), "{text}");
        let json = context.run(["check", &name, "--json"]).assert_code(0).json();
        assert_eq!(json["ok"], true, "{name}: {json}");
    }
    assert_snapshot!(context.run(["check", "summarize.json"]), @r"
    exit code: 0
    ----- stdout -----
    summarize.json is a valid manifest: Summarize 1.2.0 (org.locara.summarize)
      asks model:default  talk to the model of the role `default`, with 8,192 tokens of context, sped up by the model of `quickest`
      asks memory:6GB  hold up to 6 GB of memory
    ----- stderr -----
    ");
}

#[test]
fn a_folder_stands_for_the_manifest_in_it() {
    let context = TestContext::new();
    context.copy_app("guest-neighbour");
    assert_snapshot!(context.run(["check", "guest-neighbour"]), @r"
    exit code: 0
    ----- stdout -----
    guest-neighbour/locara.json is a valid manifest: Neighbour 0.1.0 (org.locara.test.neighbour)
      asks model:default  talk to the model of the role `default`, with 2,048 tokens of context
      asks memory:500MB  hold up to 500 MB of memory
      asks storage  keep up to 1 MB of its own data on disk
      asks http:http://127.0.0.1:1  send requests to http://127.0.0.1:1 and read the answers
      asks folder:~/data:write  read, create and replace files in ~/data
    ----- stderr -----
    ");
    assert_snapshot!(context.run(["check"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot read the manifest
      ╰─▶ failed to open file `./locara.json`: No such file or directory (os error 2)
      help: name a locara.json or the folder it is in
    ");
    assert_snapshot!(context.run(["check", "nowhere.json"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot read the manifest
      ╰─▶ failed to open file `nowhere.json`: No such file or directory (os error 2)
      help: name a locara.json or the folder it is in
    ");
}

/// The report that a person gets is the very one that the manifest crate is tested for.
#[test]
fn every_rejected_manifest_gets_its_report() {
    let context = TestContext::new();
    let rejected = stems("manifests/rejected", ".json");
    assert!(rejected.len() >= 40, "only {} files", rejected.len());
    for stem in rejected {
        let name = format!("{stem}.json");
        copy(&context, "manifests/rejected", &name);
        let snapshot = fs::read_to_string(repository("manifests/rejected").join(format!("{stem}.snap"))).unwrap();
        let report = snapshot.splitn(3, "---\n").nth(2).unwrap();

        let text = context.run(["check", &name]);
        text.assert_code(1);
        let lines = |text: &str| text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(&text.stderr), lines(report), "{name}");
        assert_eq!(text.stdout, "", "{name}: a report is talk, not a result");

        let json = context.run(["check", &name, "--json"]).assert_code(1).json();
        let problems = json["problems"].as_array().unwrap();
        assert!(json["ok"] == false && !problems.is_empty(), "{name}: {json}");
        for problem in problems {
            assert!(report.contains(problem["code"].as_str().unwrap()), "{name}: {problem}");
            assert!(problem["line"].as_u64() > Some(0) && problem["column"].as_u64() > Some(0), "{name}: {problem}");
            assert!(problem["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{name}: {problem}");
        }
    }
}
