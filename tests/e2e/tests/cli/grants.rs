//! `locara grants`: what was allowed can be seen and taken back.

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::TestContext;

#[test]
fn grants_are_shown_taken_back_and_given_again() {
    let context = TestContext::with_apps(&["guest-neighbour", "summarize"]);
    assert_snapshot!(context.run(["grants"]), @r"
    exit code: 0
    ----- stdout -----
    Summarize 0.1.0 (org.locara.summarize)
      granted      model:default                     talk to the model of the role `default`, with 2,048 tokens of context
      granted      memory:1GB                        hold up to 1 GB of memory
    Neighbour 0.1.0 (org.locara.test.neighbour)
      granted      model:default                     talk to the model of the role `default`, with 2,048 tokens of context
      granted      memory:500MB                      hold up to 500 MB of memory
      granted      storage                           keep up to 1 MB of its own data on disk
      granted      http:http://127.0.0.1:1           send requests to http://127.0.0.1:1 and read the answers
      granted      folder:~/data:write               read, create and replace files in ~/data
    ----- stderr -----
    ");
    assert_snapshot!(context.run(["grants", "neighbour", "--revoke", "storage", "--revoke", "http:http://127.0.0.1:1"]), @r"
    exit code: 0
    ----- stdout -----
    Neighbour 0.1.0 (org.locara.test.neighbour)
      granted      model:default                     talk to the model of the role `default`, with 2,048 tokens of context
      granted      memory:500MB                      hold up to 500 MB of memory
      not granted  storage                           keep up to 1 MB of its own data on disk
      not granted  http:http://127.0.0.1:1           send requests to http://127.0.0.1:1 and read the answers
      granted      folder:~/data:write               read, create and replace files in ~/data
    ----- stderr -----
    ");
    let granted = |json: serde_json::Value| {
        let asks = json["asks"].as_array().unwrap().clone();
        asks.into_iter()
            .filter(|ask| ask["granted"] == true)
            .map(|ask| ask["grant"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let left = granted(context.run(["grants", "neighbour", "--json"]).assert_code(0).json());
    assert!(!left.contains(&"storage".to_owned()) && left.contains(&"model:default".to_owned()), "{left:?}");
    let again = granted(context.run(["grants", "neighbour", "--add", "storage", "--json"]).assert_code(0).json());
    assert!(again.contains(&"storage".to_owned()), "{again:?}");
}

#[test]
fn grants_that_cannot_be_changed() {
    let context = TestContext::with_apps(&["summarize"]);
    assert_snapshot!(context.run(["grants", "summarize", "--add", "storage"]), @r"
    exit code: 3
    ----- stdout -----
    ----- stderr -----
      × org.locara.summarize does not ask for storage; a grant without an ask does nothing
      help: its manifest would have to ask for it under `capabilities.storage`
    ");
    assert_snapshot!(context.run(["grants", "summarize", "--revoke", "storage"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × storage is not granted to org.locara.summarize
      help: granted are: model:default, memory:1GB
    ");
    assert_snapshot!(context.run(["grants", "summarise"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × no installed app is called `summarise`
      help: installed are: org.locara.summarize
    ");
    assert_snapshot!(TestContext::new().run(["grants", "summarize"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × no installed app is called `summarize`
      help: no app is installed; `locara install FOLDER` installs one
    ");
}

/// The refusal names a command, and that command is the way out.
#[test]
fn an_app_without_its_grant_does_not_run_and_the_refusal_says_how() {
    let context = TestContext::with_apps(&["guest-neighbour"]);
    fs::create_dir(context.home("data")).unwrap();
    context.run(["grants", "neighbour", "--revoke", "model:default"]).assert_code(0);
    let refused = context.run(["run", "neighbour", "--", "echo"]);
    assert_snapshot!(refused, @r"
    exit code: 3
    ----- stdout -----
    ----- stderr -----
      × org.locara.test.neighbour imports `locara:app/inference@0.1.0`, which it may not have: the
      │ manifest asks for `model:default`, the owner of this machine did not grant it. Grant it:
      │ `locara grants org.locara.test.neighbour --add 'model:default'`
    ");
    let message = refused.message();
    let remedy = message.split('`').find(|part| part.starts_with("locara grants ")).expect("a command to type");
    let arguments = remedy.split(' ').skip(1).map(|word| word.trim_matches('\''));
    context.run(arguments).assert_code(0);
    context.run_with_input(["run", "neighbour", "--", "echo"], "hello").assert_code(0);
}

/// A damaged file of one app is the trouble of that app alone.
#[test]
fn damaged_grants_are_reported_and_the_other_apps_still_listed() {
    let context = TestContext::with_apps(&["guest-neighbour", "summarize"]);
    fs::write(context.state("apps/org.locara.summarize/grants.json"), "{").unwrap();
    let listed = context.run(["list", "--json"]);
    listed.assert_code(0).assert_says("the grants of org.locara.summarize are damaged");
    let apps = listed.json();
    assert_eq!((apps.as_array().unwrap().len(), &apps[0]["id"]), (1, &"org.locara.test.neighbour".into()), "{apps}");
    context.run(["run", "summarize"]).assert_code(1);
}
