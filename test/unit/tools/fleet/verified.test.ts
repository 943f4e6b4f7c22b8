import { expect, test } from "vitest";
import { sha256 } from "../../../../runtime/canonical.ts";
import { isGoodGroup, junit, statements, verifyFleet } from "../../../../tools/fleet/verified.ts";
import { fleet, handler, hash, node, status } from "./fleet-fixture.ts";

const digest = "d".repeat(64);
const kataConfig = { path: "etc/configuration.toml", content: "[runtime]\n" };
const runtime = {
  handler,
  platform: "metal-qemu-snp",
  payload: "kata-4",
  files: [{ path: "bin/shim", sha256: digest }],
  kataConfig,
};
const specJson = JSON.stringify({ atOnce: 1, runtimes: [runtime] });
const classes = [{ metadata: { name: "confidential" }, handler }];
const verified = (nodes: Parameters<typeof fleet>[0], rest = {}) =>
  verifyFleet(fleet(nodes, { specJson, ...rest }), classes);

test("a fleet is as specified only if reports, labels, pods and RuntimeClasses all say so", () => {
  expect(isGoodGroup(verified([node("a", "ready")]))).toBe(true);
  const other = "contrast-cc-metal-qemu-snp-ffffffff";
  const problems = verified([
    node("failed", "failed"),
    node("half", "ready", { status: status("ready", { handlers: [] }) }),
    node("more", "ready", { status: status("ready", { handlers: [handler, other] }) }),
    node("silent", "ready", { pod: { name: "p", current: true, ready: false, problem: "OOMKilled" } }),
    node("unlabelled", "ready", { labelled: [] }),
  ]).nodes.map(({ name, problems }) => `${name}: ${problems.join(" ")}`);
  expect(problems).toEqual([
    "failed: failed: it is failed",
    `half: ${handler} is not served. The label of ${handler} is there, and it is not served.`,
    `more: ${other} is served, and the spec does not list it. The label of ${other} is missing.`,
    "silent: The installer's pod is not Ready: OOMKilled.",
    `unlabelled: The label of ${handler} is missing.`,
  ]);
  const known = JSON.stringify({ ...JSON.parse(specJson), advisories: { [handler]: ["GHSA-0000-0000-0000"] } });
  const advisories = (json: string) => verified([], { specJson: json }).runtimes.map((one) => one.advisories);
  expect([advisories(specJson), advisories(known)]).toEqual([[[]], [["GHSA-0000-0000-0000"]]]);
  const report = verifyFleet(fleet([node("a", "ready")], { specJson }), []);
  expect(report.problems).toEqual([`No RuntimeClass leads to ${handler}.`]);
  expect(isGoodGroup(report)).toBe(false);
});

test("a dead node that the configuration names is skipped; one that it does not name is not", () => {
  const dead = node("dead", "ready", { ready: false });
  expect(isGoodGroup(verified([dead], { skipNodes: ["dead"] }))).toBe(true);
  expect(isGoodGroup(verified([dead]))).toBe(false);
});

test("JUnit's XML counts what it holds, and a node's words end no attribute of it", () => {
  const reason = `<&"> \u001b[2Kgone`;
  const text = junit([
    verified(
      [
        node("a", "ready"),
        node("b", "failed", { status: status("failed", { reason }) }),
        node("dead", "ready", { ready: false }),
      ],
      { skipNodes: ["dead"] },
    ),
  ]);
  expect(text).toBe(`<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="contrast-runtime">
  <testsuite name="metal" tests="4" failures="1" errors="0" skipped="1">
    <testcase classname="metal" name="the group"/>
    <testcase classname="metal" name="a"/>
    <testcase classname="metal" name="b"><failure message="failed: &lt;&amp;&quot;&gt; gone"/></testcase>
    <testcase classname="metal" name="dead"><skipped message="named in the configuration as dead"/></testcase>
  </testsuite>
</testsuites>
`);
});

test("a statement says of each node which files it serves, with their digests; a node that serves nothing has none", () => {
  const lines = statements([verified([node("a", "ready"), node("b", "failed")])])
    .trimEnd()
    .split("\n");
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    {
      _type: "https://in-toto.io/Statement/v1",
      subject: [
        { name: `/opt/edgeless/${handler}/bin/shim`, digest: { sha256: digest } },
        { name: `/opt/edgeless/${handler}/etc/configuration.toml`, digest: { sha256: sha256(kataConfig.content) } },
      ],
      predicateType: "https://runtime.contrast.edgeless.systems/served/v1",
      predicate: {
        node: "a",
        group: "metal",
        installSpec: { sha256: hash },
        runtimes: [{ handler, platform: "metal-qemu-snp", payload: "kata-4" }],
        containerd: "containerd://2.4.2",
        reportedAt: "2026-01-01T00:00:00.000Z",
      },
    },
  ]);
});
