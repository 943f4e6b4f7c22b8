// Answers as Kata's agent does (src/agent/policy/src/policy.rs at 4.1.0): the rule that is named as the request's type
// decides, and may change the state `pstate` by a JSON patch of "add" operations on its members.
//
// A line of standard input is a case: {"policy": path, "requests": [{"kind": …, "input": …}], "each": [the same], "why":
// whether to say why}. The requests come one after the other; each of `each` is asked in the state after them, and leaves
// it as it is. The answer's line has a member for each request: {"allowed": …, "microseconds": …, "broken": names in the
// policy's set KIND_broken, which take as long again, or null}.
use std::io::{self, BufRead};
use std::time::Instant;

use regorus::{Engine, Value};
use serde_json::{json, Value as Json};

type Failure = Box<dyn std::error::Error>;

fn engine(path: &str, policy: &str) -> Result<Engine, Failure> {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(false);
    engine.set_gather_prints(true);
    engine.add_data(Value::from_json_str(r#"{"pstate": {}}"#)?)?;
    engine.add_policy(path.to_string(), policy.to_string())?;
    Ok(engine)
}

fn query(engine: &mut Engine, rule: &str) -> Result<Option<Json>, Failure> {
    let results = engine.eval_query(format!("data.agent_policy.{rule}"), false)?;
    let value = results.result.first().and_then(|found| found.expressions.first()).map(|found| found.value.clone());
    Ok(match value {
        None | Some(Value::Undefined) => None,
        Some(value) => Some(serde_json::from_str(&value.to_json_str()?)?),
    })
}

fn patch(engine: &mut Engine, operations: &Json) -> Result<(), Failure> {
    let mut state: Json = serde_json::from_str(&engine.get_data().to_json_str()?)?;
    for operation in operations.as_array().ok_or("ops is no array")? {
        if operation["op"] != "add" {
            return Err(format!("not known here: {operation}").into());
        }
        let path = operation["path"].as_str().ok_or("no path")?;
        let (parent, key) = path.rsplit_once('/').ok_or("no member")?;
        let object = state.pointer_mut(parent).and_then(Json::as_object_mut).ok_or("no such object")?;
        object.insert(key.replace("~1", "/").replace("~0", "~"), operation["value"].clone());
    }
    engine.clear_data();
    engine.add_data(Value::from_json_str(&state.to_string())?)?;
    Ok(())
}

fn ask(engine: &mut Engine, request: &Json, lasting: bool, why: bool) -> Result<Json, Failure> {
    let kind = request["kind"].as_str().ok_or("no kind")?;
    engine.set_input(Value::from_json_str(&request["input"].to_string())?);
    let begin = Instant::now();
    // What the engine cannot evaluate is an error to the agent, which refuses.
    let answer = query(engine, kind).unwrap_or_else(|error| {
        eprintln!("{kind}: {error}");
        None
    });
    let microseconds = begin.elapsed().as_micros() as u64;
    let allowed = match &answer {
        Some(Json::Bool(allowed)) => *allowed,
        Some(Json::Object(object)) => object["allowed"] == true,
        _ => false,
    };
    let broken = if allowed || !why { None } else { query(engine, &format!("{kind}_broken")).ok().flatten() };
    if let Some(operations) = answer.as_ref().and_then(|answer| answer.get("ops")).filter(|_| allowed && lasting) {
        patch(engine, operations)?;
    }
    Ok(json!({ "allowed": allowed, "microseconds": microseconds, "broken": broken }))
}

fn main() -> Result<(), Failure> {
    let mut known: Option<(String, Engine)> = None;
    for line in io::stdin().lock().lines() {
        let case: Json = serde_json::from_str(&line?)?;
        let path = case["policy"].as_str().ok_or("no policy")?.to_string();
        if known.as_ref().map(|(name, _)| name) != Some(&path) {
            known = Some((path.clone(), engine(&path, &std::fs::read_to_string(&path)?)?));
        }
        let (_, fresh) = known.as_ref().ok_or("no engine")?;
        let mut engine = fresh.clone();
        let why = case["why"].as_bool().ok_or("no why")?;
        let mut answers = Vec::new();
        for request in case["requests"].as_array().ok_or("no requests")? {
            answers.push(ask(&mut engine, request, true, why)?);
        }
        for request in case["each"].as_array().ok_or("no each")? {
            answers.push(ask(&mut engine, request, false, why)?);
        }
        println!("{}", Json::Array(answers));
    }
    Ok(())
}
