import { copyFile, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { restartsPath } from "../../node-installer/host/restart-budget.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { until, useCluster } from "./harness.ts";
import { configPath, handlersOf, NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * Nodes whose containerd others change, too: without restarting it, or again and again. Whatever they do, and whenever, the
 * CRI answers, their bytes stay, and containerd is restarted at most as often as the budget allows.
 */
const cluster = useCluster("foreign-changes", [{ name: "node-1" }, { name: "node-2", containerd: "1.7" }]);

let directory: string;
let payload: SmallPayload;
let second: SmallPayload;
let spec: string;
const nodes = new Map<string, NodeWithInstaller>();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "foreign-changes-"));
  payload = await smallPayload(directory, "one");
  second = await smallPayload(directory, "two");
  spec = specOf("workers", [payload.runtime]);
  const { nodeInstaller } = await buildPrograms();
  for (const name of ["node-1", "node-2"]) {
    const node = new NodeWithInstaller(cluster(), name);
    await node.prepare([nodeInstaller], [payload, second]);
    await node.keep("empty");
    nodes.set(name, node);
  }
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const allowing = () => JSON.stringify({ ...JSON.parse(spec), loadPendingChanges: true });
const startsOf = async (node: NodeWithInstaller) =>
  (await node.run("journalctl", "--unit=containerd", "--output=cat")).split("Started ").length;
const isUp = async (node: NodeWithInstaller) => (await node.runtimes()) !== undefined || undefined;

async function restart(node: NodeWithInstaller): Promise<void> {
  await node.run("systemctl", "reset-failed", "containerd.service");
  await node.run("systemctl", "restart", "containerd.service");
  await until("the CRI answers", () => isUp(node));
}

/** Units of a program that writes to containerd's file. */
const goldenPath = "/etc/golden.toml";
const dropIn = "/etc/systemd/system/containerd.service.d/10-golden.conf";
const watcher = "/etc/systemd/system/golden";

describe.concurrent.each([
  { name: "node-1", id: "io.containerd.cri.v1.runtime", images: "io.containerd.cri.v1.images" },
  { name: "node-2", id: "io.containerd.grpc.v1.cri", images: "io.containerd.grpc.v1.cri" },
] as const)("$name", ({ name, id, images }) => {
  const node = () => nodes.get(name) as NodeWithInstaller;
  let original = "";
  const handler = () => payload.runtime.handler;

  beforeEach(async () => {
    await node().run("sh", "-c", `systemctl disable --now golden.path 2>/dev/null; rm -f ${dropIn} ${watcher}.*`);
    await node().run("systemctl", "daemon-reload");
    await node().reset("empty");
    original = (await node().read(configPath)) ?? "";
    await node().write(goldenPath, original);
    await restart(node());
    // A file's time of change has to be later than the daemon's start, by more than clocks differ.
    await node().run("sleep", "3");
  });

  const runtime = (key: string, type = "io.containerd.runc.v2") =>
    `[plugins."${id}".containerd.runtimes.${key}]\n  runtime_type = "${type}"\n`;
  /** The nodes' own files have registry.config_path. */
  const mirror = `[plugins."${images}".registry.mirrors."docker.io"]\n  endpoint = ["https://mirror.example"]\n`;

  describe("a change that nobody has loaded", { concurrent: false }, () => {
    test.each<[string, { before?: string; after: string }, RegExp]>([
      ["a runtime that is new", { after: runtime("theirs") }, /handler theirs is new/],
      ["a runtime that is gone", { before: runtime("theirs"), after: "" }, /handler theirs is not served/],
      [
        "options of a runtime",
        {
          before: runtime("theirs"),
          after: `${runtime("theirs")}[plugins."${id}".containerd.runtimes.theirs.options]\n  SystemdCgroup = true\n`,
        },
        /options of handler theirs is \{"SystemdCgroup":true\} instead of \{\}/,
      ],
      ["a comment, of which only the time tells", { after: "# theirs\n" }, /config\.toml changed after it/],
    ])("%s: refused without a restart, and installed after the advised one", async (_, { before, after }, said) => {
      if (before !== undefined) {
        await node().write(configPath, `${original}${before}`);
        await restart(node());
        await node().run("sleep", "3");
      }
      const edited = `${original}${after}`;
      await node().write(configPath, edited);
      const starts = await startsOf(node());
      const { code, stderr } = await node().installer("install", spec);
      expect(code, stderr).toBe(3);
      expect(stderr).toMatch(said);
      expect(stderr).toContain("restart containerd.service first");
      expect((await node().installer("plan", spec)).stdout).toMatch(said);
      expect([await node().read(configPath), await startsOf(node())]).toEqual([edited, starts]);

      const allowed = await node().installer("install", allowing());
      expect(allowed.code, allowed.stderr).toBe(0);
      expect(await startsOf(node())).toBe(starts + 1);
      expect(await node().served()).toEqual([handler()]);
      // The sandbox that proved the handler has left nothing, neither did an earlier one.
      expect(allowed.stdout).toMatch(/"event":"sandbox-started".*"seconds":\d/);
      expect(allowed.stdout).not.toContain("sandbox-left-over");
      expect(await node().run("find", "/sys/fs/cgroup", "-name", "contrast-runtime-verify")).toBe("");
      expect((await node().installer("uninstall", spec)).code).toBe(0);
      expect(await node().read(configPath)).toBe(edited);
    });

    test("one with which the CRI plugin would not start: refused, whatever the stack allows", async () => {
      await node().write(configPath, `${original}${mirror}`);
      const starts = await startsOf(node());
      for (const text of [spec, allowing()]) {
        const { code, stderr } = await node().installer("install", text);
        expect(code, stderr).toBe(3);
        expect(stderr).toMatch(/mirrors and registry\.config_path are both set.*Correct it first/);
      }
      expect(await startsOf(node())).toBe(starts);
      expect(await isUp(node())).toBe(true);

      await node().run("systemctl", "restart", "containerd.service");
      await until("the CRI is gone", async () => ((await node().runtimes()) === undefined ? true : undefined));
      const { stderr } = await node().installer("install", spec);
      expect(stderr).toMatch(/The reason seems to be: .*mirrors/);
    });

    test("an upgraded containerd: refused, said by plan, and loaded if the stack allows it", async () => {
      const binary = join(await node().root(), "usr/bin/containerd");
      await rename(binary, `${binary}-kept`);
      try {
        await copyFile(join(await containerdPrograms("2.3", toStderr), "containerd"), binary);
        const { code, stderr } = await node().installer("install", spec);
        expect(code, stderr).toBe(3);
        expect(stderr).toMatch(/runs containerd \S+, but \/usr\/bin\/containerd is 2\.3\.\d+ now/);
        expect((await node().installer("plan", spec)).stdout).toMatch(/is 2\.3\.\d+ now: restart it first/);
        const allowed = await node().installer("install", allowing());
        expect(allowed.code, allowed.stderr).toBe(0);
        expect(await node().served()).toEqual([handler()]);
        expect((await node().installer("uninstall", spec)).code).toBe(0);
      } finally {
        await rename(`${binary}-kept`, binary);
      }
    });
  });

  test("a new file that imports the one with our tables: recognized, installed to, and uninstalled from", {
    concurrent: false,
  }, async () => {
    const root = "/etc/imports-containerd.toml";
    const both = specOf("workers", [payload.runtime, second.runtime]);
    try {
      expect((await node().installer("install", spec)).code).toBe(0);
      const installed = await node().read(configPath);
      const importing = `version = ${id.includes("grpc") ? 2 : 3}\nimports = ["${configPath}"]\n`;
      await node().write(root, importing);
      await node().write(dropIn, `[Service]\nExecStart=\nExecStart=/usr/bin/containerd --config ${root}\n`);
      await node().run("systemctl", "daemon-reload");
      await restart(node());
      await node().run("sleep", "3");
      const starts = await startsOf(node());
      const again = await node().installer("install", spec);
      expect(again.code, again.stderr).toBe(0);
      expect([await node().read(configPath), await startsOf(node())]).toEqual([installed, starts]);

      const plan = await node().installer("plan", both);
      expect(plan.stdout).toContain(configPath);
      expect(plan.stdout).not.toContain(root);
      const more = await node().installer("install", both);
      expect(more.code, more.stderr).toBe(0);
      expect(await node().served()).toEqual([payload, second].map(({ runtime }) => runtime.handler).sort());
      const removed = await node().installer("uninstall", both);
      expect(removed.code, removed.stderr).toBe(0);
      expect(await node().served()).toEqual([]);
      expect([await node().read(configPath), await node().read(root)]).toEqual([original, importing]);
      expect(await startsOf(node())).toBe(starts + 2);
    } finally {
      await node().run("rm", "-f", root);
    }
  });

  describe("a program that puts its file back", { concurrent: false }, () => {
    const atEachStart = async () => {
      await node().write(dropIn, `[Service]\nExecStartPre=/bin/cp ${goldenPath} ${configPath}\n`);
      await node().run("systemctl", "daemon-reload");
    };
    const atEachChange = async () => {
      const command = `/bin/sh -c 'cmp -s ${goldenPath} ${configPath} || cp ${goldenPath} ${configPath}'`;
      await node().write(`${watcher}.path`, `[Path]\nPathChanged=${configPath}\n`);
      await node().write(`${watcher}.service`, `[Service]\nType=oneshot\nExecStart=${command}\n`);
      await node().run("systemctl", "daemon-reload");
      await node().run("systemctl", "start", "golden.path");
    };
    const everyTime = async () => {
      await node().run("sh", "-c", `cp ${goldenPath} ${configPath} && systemctl reset-failed containerd`);
      await node().run("systemctl", "restart", "containerd.service");
      await until("the CRI answers", () => isUp(node()));
    };
    const nothing = async () => undefined;

    test.each<[string, { arrange: () => Promise<void>; again: () => Promise<void>; names: RegExp }]>([
      ["at each start", { arrange: atEachStart, again: nothing, names: /ExecStartPre=\/bin\/cp .*10-golden\.conf/ }],
      ["at each change", { arrange: atEachChange, again: nothing, names: /golden\.path watches it/ }],
      ["now and then", { arrange: nothing, again: everyTime, names: /was last written at/ }],
    ])("%s: ends within the budget, named, with the CRI up and its bytes in place", async (_, writer) => {
      await writer.arrange();
      const before = await startsOf(node());
      let own = 0;
      let last = { code: 0, stderr: "" };
      for (let run = 0; run < 12 && !last.stderr.includes("in the last 24 hours"); run += 1) {
        last = await node().installer("install", spec);
        expect(await isUp(node())).toBe(true);
        await node().run("sleep", "1");
        await writer.again();
        if (writer.again !== nothing) own += 1;
      }
      expect(last.code, last.stderr).toBe(3);
      expect(last.stderr).toMatch(/containerd was restarted \d+ times .*The next attempt is made at/);
      expect(last.stderr).toMatch(writer.names);
      const ours = (await startsOf(node())) - before - own;
      expect(ours).toBeLessThanOrEqual(6);
      expect(ours).toBeGreaterThanOrEqual(2);
      await until("its bytes are in place", async () =>
        handlersOf(await node().read(configPath)).length === 0 ? true : undefined,
      );
      expect((await node().read(restartsPath))?.trim().split("\n")).toHaveLength(ours);
    });
  });
});
