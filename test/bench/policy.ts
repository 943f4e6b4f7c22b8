// What a guest's engine takes for each request of a pod's life: the largest decides how much later a container starts.
import { podPolicy } from "../../workload/policy/pod-policy.ts";
import { evaluate, policyEngine } from "../engine/pod-policy/evaluate.ts";
import { examples } from "../engine/pod-policy/examples.ts";
import { requestsOf } from "../engine/pod-policy/kata-requests.ts";
import type { Benchmark } from "./measure.ts";

const rounds = 10;

export async function policyBenchmarks(): Promise<Benchmark[]> {
  const engine = await policyEngine();
  const { captured, input } = examples("kata-go").web;
  const requests = requestsOf(captured, "kata-go");
  const { rego } = podPolicy(input);
  const times: number[][] = requests.map(() => []);
  for (let round = 0; round < rounds; round += 1)
    for (const [index, { microseconds }] of (await evaluate(engine, rego, requests)).entries())
      times[index]?.push(microseconds / 1000);
  // The engine tells the time that passed, which whatever else runs on the machine can only lengthen.
  const fastest = times.map((each) => Math.min(...each));
  const ours = Math.max(...fastest);
  const kind = requests[fastest.indexOf(ours)]?.kind;
  return [
    {
      name: `a pod's policy: the slowest of its ${requests.length} requests`,
      ours,
      limit: 10,
      ok: ours <= 10,
      note: `${kind}; all of them ${fastest.reduce((sum, each) => sum + each, 0).toFixed(0)} ms`,
    },
  ];
}
