import { test } from "vitest";
import { type Case, expectMistakes, runtime, withRuntime } from "./stacks.ts";

test.each<Case>([
  [
    "a table in a table",
    withRuntime({ kata: { hypervisor: { qemu: { default_memory: 1 } } } }),
    {
      [`${runtime}.kata.hypervisor.qemu`]:
        '{"default_memory":1} must be a text, a number, true, false or a list of texts: hypervisor, agent and runtime are all the tables that there are.',
    },
  ],
  [
    "no value",
    withRuntime({ kata: { agent: { dial_timeout: null } } }),
    {
      [`${runtime}.kata.agent.dial_timeout`]: "is empty. Expected a text, a number, true, false or a list of texts.",
    },
  ],
  [
    "no tables",
    withRuntime({ kata: ["x=1"] }),
    { [`${runtime}.kata`]: "[secret] is not allowed. Expected a map of keys." },
  ],
  [
    "another table",
    withRuntime({ kata: { hypervisors: {} } }),
    {
      [`${runtime}.kata.hypervisors`]:
        "is not a known key. Allowed here: hypervisor, agent, runtime. Did you mean hypervisor?",
    },
  ],
  [
    "a key that this Kata does not know, by its place",
    withRuntime({ kata: { agent: { dial_timout: 1 } } }),
    {
      [`${runtime}.kata.agent.dial_timout`]:
        "is no key that Kata 3.31.0 (contrast-go) knows in [agent]: did you mean dial_timeout?",
    },
  ],
  [
    "a proxy that is no map",
    withRuntime({ guestProxy: "http://x:1" }),
    { [`${runtime}.guestProxy`]: "Expected a map" },
  ],
  [
    "a login in a proxy's address",
    withRuntime({ guestProxy: { https: "http://u:p@x:1" } }),
    {
      [`${runtime}.guestProxy.https`]:
        "[secret] must be http://host:port or https://host:port, without a login: everybody can read it.",
    },
  ],
])("what a runtime sets of its Kata: %s", async (_what, entries, says) => {
  await expectMistakes(entries, says);
});
