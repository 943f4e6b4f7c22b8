import * as fc from "fast-check";
import { parse } from "smol-toml";
import { expect, test } from "vitest";
import { outlineAgent } from "../../../../node-installer/containerd/agent.ts";
import { parseDocument } from "../../../../node-installer/containerd/document.ts";
import { editConfiguration } from "../../../../node-installer/containerd/edit.ts";
import { outline } from "../../../../node-installer/containerd/outline.ts";
import { outlineArguments } from "../../../../node-installer/containerd/started.ts";
import { mergeUnit, outlineEnvironment, outlineUnit } from "../../../../node-installer/containerd/unit.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { MemoryNode } from "../../../fakes/memory-node.ts";

const canary = "CANARY";
const file = "/etc/containerd/config.toml";
const outlined = (text: string) => outline(Buffer.from(text), file).toString();

test.each([
  [
    "a password",
    'version = 3\n[plugins."io.containerd.cri.v1.images".registry.configs."r.example".auth]\npassword = "CANARY"\n',
  ],
  ["a header of any name, in one line", 'header = { X-Api = "CANARY", y = ["a]", \'CANARY\'] }\n'],
  ["text over several lines", 'a = """\nCANARY\n\\"""CANARY"""\n[b]\n'],
  ["literal text with quotes at its end", "a = '''\nCANARY'''''\n[b]\n"],
  ["a comment, also beside a mark", "# CANARY\n[a] # CANARY\n"],
  ["a damaged block", "# BEGIN contrast-runtime CANARY\n[x]\n# END contrast-runtime CANARY\n"],
  ["a key that is no name", '[a."CANARY r"]\n"https://u:CANARY@r" = 1\n'],
  ["a proxy in an environment", 'env = ["HTTPS_PROXY=http://u:CANARY/x@proxy"]\n'],
  ["a file that is no TOML", "ENCRYPTION_KEY=CANARY --key CANARY -pCANARY\n"],
  ["a disabled plugin that is none", 'disabled_plugins = ["CANARY"]\n'],
  ["a version that is none", 'version = "CANARY"\n'],
])("%s stays on the node", (_, text) => {
  const clean = outlined(text);
  expect(clean).not.toContain(canary);
  expect(outlined(clean)).toBe(clean);
});

test("what an edit asks for is kept", () => {
  const text = `version = 2\nimports = ["/etc/x/*.toml", "b.toml"]\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[proxy_plugins.stargz]\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n`;
  expect(outlined(text)).toBe(text);
});

test("a long file takes no longer than its length", () => {
  const started = performance.now();
  for (const part of ["-", "# ", '"', "[", "a.", " ", "\n", "\\", "'''"]) outlined(`a = "${part.repeat(200_000)}`);
  for (const part of ["-", " ", "\\\n", "[Service]"]) outlineUnit(`ExecStart=${part.repeat(200_000)}x`);
  // Quadratic work on any of them takes minutes.
  expect(performance.now() - started).toBeLessThan(30_000);
});

const word = fc.stringMatching(/^[a-z]{1,6}$/);
const text = fc.oneof(fc.string(), fc.constant("]"), fc.constant("#"), fc.constant("a\nb"));
const value: fc.Arbitrary<string> = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    text.map((one) => JSON.stringify(`CANARY${one}`).replaceAll("\u007f", "\\u007f")),
    word.map((one) => `'${one}CANARY'`),
    word.map((one) => `"""\nCANARY ""${one}"""`),
    fc.constantFrom("true", "12", "0x1F", "-1.5", "1979-05-27 07:32:00Z", "1979-05-27", "07:32:00"),
    fc.array(tie("value"), { maxLength: 3 }).map((all) => `[${all.join(", ")}]`),
    fc.tuple(word, tie("value")).map(([key, one]) => `{ ${key} = ${one} }`),
  ),
})).value;
const table = fc.tuple(word, fc.uniqueArray(fc.tuple(word, value), { selector: ([key]) => key, maxLength: 5 }));
const shape = (document: unknown): unknown =>
  Array.isArray(document)
    ? document.map(shape)
    : typeof document === "object" && document !== null && !(document instanceof Date)
      ? Object.fromEntries(Object.entries(document).map(([name, part]) => [name, shape(part)]))
      : typeof document;

test("any valid file keeps its tables, keys and types, and loses every value", () => {
  fc.assert(
    fc.property(fc.uniqueArray(table, { selector: ([name]) => name, maxLength: 4 }), (tables) => {
      const lines = tables.flatMap(([name, pairs]) => [
        `[${name}] # CANARY`,
        ...pairs.map(([key, is]) => `${key} = ${is}`),
      ]);
      const whole = `${lines.join("\n")}\n`;
      parseDocument(whole, file);
      const clean = outlined(whole);
      expect(clean).not.toContain(canary);
      expect(shape(parse(clean))).toEqual(shape(parse(whole)));
    }),
  );
});

test("an edit adds the same block, or is refused alike", () => {
  const node = new MemoryNode();
  const runtime = node.runtime("00000001");
  node.close();
  const entries = [{ handler: runtime.handler, entry: runtime.containerd }];
  const context = { file, kind: "root" as const, containerdVersion: "2.4.0" };
  const edited = (bytes: Buffer) => {
    try {
      const next = editConfiguration(bytes, entries, context)?.toString() ?? "";
      return next.slice(next.indexOf("# BEGIN contrast-runtime"));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return error.code;
    }
  };
  const first = editConfiguration(Buffer.from('version = 3\n[a]\nb = "x"'), entries, context) ?? Buffer.alloc(0);
  for (const bytes of [
    Buffer.from('version = 3\n# x\n[plugins."io.containerd.cri.v1.runtime"]\na = "b"\n'),
    Buffer.from("version = 3\r\n[a]\r\nb = 'x'\r\n"),
    Buffer.from('version = 3\nplugins = { "io.containerd.cri.v1.runtime" = { } }\n'),
    Buffer.from("version = 3\nx = \n"),
    Buffer.from([0, 1]),
    Buffer.from([0xff, 0xfe]),
    Buffer.from("a = 1\rb = 2\n"),
    first,
    Buffer.from(first.toString().replace("privileged_without_host_devices = true", "x = 1")),
    Buffer.from(`${first}c = 1\n`),
  ])
    expect(edited(outline(bytes, file))).toBe(edited(bytes));
});

test("of a unit only where containerd is and what it reads", () => {
  const unit =
    '[Service]\nEnvironment="A=CANARY"\nExecStart=/usr/bin/containerd -c /etc/c.toml --token CANARY --address=/run/c.sock\nKillMode=process\n# CANARY\n[Unit]\nDescription=CANARY\n';
  const clean = outlineUnit(unit);
  expect(clean).not.toContain(canary);
  expect(mergeUnit([clean])).toEqual({
    execStart: ["/usr/bin/containerd", "--address", "/run/c.sock", "--config", "/etc/c.toml"],
    killMode: "process",
  });
  const reset = "[Service]\nExecStart=\nExecStart=/usr/local/bin/k3s agent '--token' 'CANARY'\nKillMode=CANARY\n";
  expect(outlineUnit(reset)).toBe("[Service]\nExecStart=\nExecStart=/usr/local/bin/k3s\nKillMode=unknown\n");
});

test("of a unit's variables, and of files with them, only paths on which its command may depend", () => {
  const lines = ["A=CANARY", "API_KEY_FILE=/CANARY", "DATA_DIR=/data dir/CANARY", "TOKEN=/CANARY", "CONFIG_DIR=/data"];
  const unit = `[Service]\n${lines.map((line) => `Environment="${line}"\n`).join("")}EnvironmentFile=-/etc/default/%N\n`;
  expect(outlineUnit(unit)).toBe("[Service]\nEnvironment=CONFIG_DIR=/data\nEnvironmentFile=-/etc/default/%N\n");
  expect(outlineEnvironment(lines.join("\n"))).toBe("CONFIG_DIR=/data\n");
  expect(mergeUnit([outlineUnit(unit)])).toEqual({
    environment: { CONFIG_DIR: "/data" },
    environmentFiles: ["-/etc/default/%N"],
  });
});

test("of an agent's command, and of its file, only where its data and its containerd are", () => {
  const command = "/usr/local/bin/rke2 agent --token CANARY --data-dir=/data --node-label CANARY=1";
  const unit = outlineUnit(`[Service]\nExecStart=${command}\n`);
  expect(mergeUnit([unit]).execStart).toEqual(["/usr/local/bin/rke2", "--data-dir", "/data"]);
  const file =
    "token: CANARY\ndata-dir: /data # CANARY\ncontainer-runtime-endpoint: unix:///run/c.sock\nserver: CANARY\n";
  expect(outlineAgent("/etc/rancher/rke2/config.yaml.d/a.yaml", file)).toBe(
    "data-dir: /data\ncontainer-runtime-endpoint: unix:///run/c.sock\n",
  );
  const line = "--log-level=CANARY\n--config=/etc/c.toml\n";
  expect(outlineArguments("/var/snap/k8s/common/args/containerd", line)).toBe("--config=/etc/c.toml\n");
});
