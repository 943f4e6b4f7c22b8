import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { restartsPath } from "../../node-installer/host/restart-budget.ts";
import { buildPrograms, bundle } from "../../tools/image/bundle.ts";
import { breakOn, heal, makeBreakable } from "./breakable-containerd.ts";
import type { FaultyRun } from "./faulty-installer.ts";
import { until, useCluster } from "./harness.ts";
import { configPath, NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * Another program puts its file in containerd's place while a handler is tried with which the CRI does not come up: then the
 * daemon may run with what no file says any more. Whoever is left, the installer or the guard alone, has it serve again.
 */
const nodes = [
  { name: "node-1", containerd: "2.4" },
  { name: "node-2", containerd: "1.7" },
] as const;
const cluster = useCluster("foreign-breakage", [...nodes]);

const golden = "/etc/golden.toml";
const dropIn = "/etc/systemd/system/containerd.service.d/10-golden.conf";
const watcher = "/etc/systemd/system/golden";
const copies = `cmp -s ${golden} ${configPath} || cp ${golden} ${configPath}`;

let directory: string;
let payload: SmallPayload;
const installers = new Map<string, NodeWithInstaller>();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "foreign-breakage-"));
  payload = await smallPayload(directory, "one");
  const { nodeInstaller } = await buildPrograms();
  const faulty = join(directory, "faulty-installer.mjs");
  await bundle([{ from: "test/cluster/faulty-installer.ts", to: faulty }]);
  for (const { name } of nodes) {
    const node = new NodeWithInstaller(cluster(), name);
    await node.prepare([nodeInstaller, faulty], [payload]);
    await makeBreakable(node);
    await node.write(golden, `${await node.read(configPath)}# kept by somebody else\n`);
    await node.run("cp", golden, configPath);
    await node.keep("empty");
    installers.set(name, node);
  }
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** Once, while containerd runs with the handler: with and without an installer that lives on. */
const meanwhile = (survives: boolean): FaultyRun["fault"] => ({
  point: "step gate",
  occurrence: 1,
  when: "before",
  command: copies,
  survives,
});
const ways: [string, { begins?: string; fault?: FaultyRun["fault"] }][] = [
  [
    "at each start (ExecStartPre)",
    { begins: `printf '[Service]\\nExecStartPre=/bin/cp ${golden} ${configPath}\\n' >${dropIn}` },
  ],
  [
    "at each change (a path unit)",
    {
      begins: `printf '[Path]\\nPathChanged=${configPath}\\n' >${watcher}.path
printf "[Service]\\nType=oneshot\\nExecStart=/bin/sh -c '${copies}'\\n" >${watcher}.service`,
    },
  ],
  ["once, while the handler is tried", { fault: meanwhile(true) }],
  ["once, while the handler is tried, and the installer dies: only the guard is left", { fault: meanwhile(false) }],
];

describe.concurrent.each(nodes)("containerd $containerd", ({ name }) => {
  test.each(ways)("a file that is put back %s", { concurrent: false }, async (_, { begins, fault }) => {
    const node = installers.get(name) as NodeWithInstaller;
    const { handler } = payload.runtime;
    const spec = specOf("workers", [payload.runtime]);
    const sh = (script: string) => node.run("sh", "-ec", script);
    const stops = `systemctl disable --now golden.path 2>/dev/null || true
rm -f ${dropIn} ${watcher}.*
systemctl daemon-reload`;
    await heal(node);
    await sh(stops);
    await node.reset("empty");
    // A file that is newer than the daemon would be refused as one that nobody loaded.
    await sh("systemctl reset-failed containerd; systemctl restart containerd");
    await until("the CRI answers", () => node.runtimes());
    await breakOn(node, handler, "cri");
    if (begins !== undefined) await sh(`${begins}\nsystemctl daemon-reload\nsystemctl start golden.path || true`);

    const ends: string[] = [];
    for (let run = 0; run < 3; run += 1) {
      const { stdout, stderr } = await node.faultyInstaller(spec, run === 0 && fault ? { fault } : {});
      ends.push(JSON.parse(stdout.trim().split("\n").at(-1) ?? "").code ?? stderr);
      // Nobody else is there to help: no kubelet's restart of a pod, and no further run.
      await until(`the CRI answers after ${ends.at(-1)}`, () => node.runtimes());
    }
    expect(await node.served()).toEqual([]);
    expect(await node.read(configPath)).toBe(await node.read(golden));
    expect(((await node.read(restartsPath)) ?? "").split("\n").length - 1).toBeLessThanOrEqual(6);

    await sh(stops);
    await heal(node);
    await sh("systemctl reset-failed containerd; systemctl restart containerd");
    await until("the CRI answers", () => node.runtimes());
    const last = await node.installer("install", spec, "--retry");
    expect(last.code, `${ends.join(", ")}: ${last.stderr}`).toBe(0);
    expect(await node.served()).toEqual([handler]);
    expect((await node.installer("uninstall", spec)).code).toBe(0);
    expect(await node.read(configPath)).toBe(await node.read(golden));
  });
});
