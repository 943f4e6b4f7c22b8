// Evaluates Trustee's policy as Trustee does: the reference values are behind the extension query_reference_value, and
// answers with the trust claims. One line of standard input per case: {"input": …, "references": {…}}.
use std::io::{self, BufRead};
use std::sync::Arc;

use regorus::{Engine, Value};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("the policy's path is missing")?;
    let policy = std::fs::read_to_string(&path)?;
    for line in io::stdin().lock().lines() {
        let case: serde_json::Value = serde_json::from_str(&line?)?;
        let references = Arc::new(case["references"].clone());
        let mut engine = Engine::new();
        engine.add_policy(path.clone(), policy.clone())?;
        engine.set_input(Value::from_json_str(&case["input"].to_string())?);
        engine.add_extension(
            "query_reference_value".to_string(),
            1,
            Box::new(move |arguments: Vec<Value>| {
                let name = arguments[0].as_string()?.to_string();
                match references.get(&name) {
                    Some(value) => Value::from_json_str(&value.to_string()),
                    // As Trustee answers for what nobody registered.
                    None => Ok(Value::Null),
                }
            }),
        )?;
        let claims = engine.eval_rule("data.policy.trust_claims".to_string())?.to_json_str()?;
        println!("{}", serde_json::from_str::<serde_json::Value>(&claims)?);
    }
    Ok(())
}
