import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { connectCluster } from "../../../components/cluster.ts";
import { readConfiguration, type StackConfiguration } from "../../../components/config/read.ts";
import { ContrastRuntime } from "../../../components/contrast-runtime.ts";
import { installerImage } from "../../../components/installer-image.ts";
import { nodeGroup } from "../../../components/stack-groups.ts";
import { localNetworkVariable } from "../../../runtime/names.ts";
import { Refusal } from "../../../runtime/refusal.ts";
import { quote } from "../../../runtime/shell.ts";
import { certificate } from "../../fixtures/certificates.ts";
import { type Recorded, record } from "../../recorded-program.ts";
import { fixtureAdvisories } from "../runtime/fixtures.ts";

/*
 * Whatever stands in a stack's configuration is refused, or it is data: every command that a stack with it registers is
 * run by a real shell, with stand-ins for the programs that it calls, and none may do what the value says.
 */

let machine: string;
let programs: string;
beforeAll(() => {
  machine = mkdtempSync(join(tmpdir(), "injection-"));
  programs = join(machine, "programs");
  mkdirSync(programs);
  for (const name of ["node", "systemctl", "sysctl", "modprobe"]) program(name, "exit 0");
  program("sudo", 'shift; exec "$@"');
});
afterAll(() => rmSync(machine, { recursive: true }));

function program(name: string, script: string): void {
  const file = join(programs, name);
  writeFileSync(file, `#!/bin/sh\n${script}\n`);
  chmodSync(file, 0o755);
}

/** Runs a command in an empty tree; returns the tree. */
function run(command: string, stdin = ""): string {
  const root = mkdtempSync(join(machine, "host-"));
  const env = { PATH: `${programs}:${process.env.PATH}`, ROOT: root };
  spawnSync("sh", ["-c", command], { cwd: root, env, input: stdin, stdio: ["pipe", "ignore", "ignore"] });
  return root;
}

const fx = "test/fixtures/manifests/fixture-";
const image = `ghcr.io/edgeless/contrast-node-installer@sha256:${"a".repeat(64)}`;
const runtimes = [
  {
    platform: "metal-qemu-snp",
    payload: `${fx}contrast-go.json`,
    acknowledgedAdvisories: fixtureAdvisories["contrast-go"],
    overhead: { memory: "1Gi", cpu: "1" },
  },
];
const stacks: Record<string, Record<string, unknown>> = {
  hosts: {
    cluster: { kind: "kubeconfig", name: "prod", kubeconfig: "apiVersion: v1" },
    installerImage: image,
    registry: { prefix: "mirror.example:5000/apps", ca: certificate("authority"), pullSecret: '{"auths": {}}' },
    groups: {
      workers: {
        distribution: {
          name: "k3s",
          configPath: "/etc/a",
          socket: "/run/a",
          unit: "a.service",
          containerdVersion: "2.1.4",
        },
        nodes: {
          hosts: [
            {
              name: "n1",
              address: "10.0.0.1",
              hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            },
          ],
          ssh: { user: "admin", privateKey: "key" },
        },
        runtimes,
        minimumNodes: 0,
        tolerations: [{ key: "a/b", operator: "Equal", value: "c", effect: "NoSchedule" }],
        priorityClass: "important",
      },
    },
  },
  selected: {
    cluster: { kind: "kubeconfig", name: "c" },
    installerImage: image,
    groups: {
      workers: { distribution: "containerd", nodes: { selector: { "a/b": "c" } }, runtimes, ignoreNodes: ["dead"] },
      others: { distribution: "containerd", nodes: { names: ["n2"] }, runtimes },
    },
  },
  here: {
    cluster: { kind: "local", nodes: [{ name: "n1", containerd: "2.4", labels: { a: "b" } }] },
    groups: { workers: { distribution: "containerd", runtimes: [{ platform: "local", payload: `${fx}local.json` }] } },
  },
  azure: {
    cluster: {
      kind: "aks",
      subscriptionId: "00000000-0000-0000-0000-000000000000",
      resourceGroup: "rg",
      name: "c",
      credentials: "user",
      retiredService: "acknowledged",
    },
    installerImage: image,
    groups: {
      cc: {
        distribution: "aks",
        nodes: { pool: { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2, zones: ["1"], labels: { a: "b" } } },
        runtimes: [
          {
            platform: "aks-clh-snp",
            payload: `${fx}contrast-aks.json`,
            acknowledgedAdvisories: fixtureAdvisories["contrast-aks"],
          },
        ],
      },
    },
  },
};

/** Texts that do something in a shell wherever they are pasted: bare, in quotes of either kind, in a here-document. */
const act = "touch executed";
const hostile = [
  `$(${act})`,
  `\`${act}\``,
  `'; ${act}; '`,
  `"; ${act}; "`,
  `x\nCONTENT\n${act}\n`,
  `; ${act} #`,
  `-----BEGIN CERTIFICATE-----\nCONTENT\n${act}\n-----END CERTIFICATE-----\n`,
  `m.example/$(${act})`,
  "--help",
  "../../etc",
];

/** Commands that ran: most are the same whatever a stack says. */
const seen = new Set<string>();

type Path = (string | number)[];
/** Every text in a value, and every name that its author chose. */
function texts(value: unknown, path: Path = []): Path[] {
  if (typeof value === "string") return [path];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, child]) =>
    texts(child, [...path, Array.isArray(value) ? Number(key) : key]),
  );
}
function replaced(value: unknown, [part, ...rest]: Path, text: string): unknown {
  if (part === undefined) return text;
  if (Array.isArray(value)) return value.map((child, i) => (i === part ? replaced(child, rest, text) : child));
  const map = value as Record<string, unknown>;
  return { ...map, [part]: replaced(map[part], rest, text) };
}

const read = (entries: Record<string, unknown>): Promise<StackConfiguration> =>
  readConfiguration({
    stack: "dev",
    entries: Object.fromEntries(
      Object.entries(entries).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
    ),
    secretKeys: ["cluster", "groups", "registry"],
    readText: (path) => readFile(path, "utf8"),
    imageDigest: async () => `sha256:${"a".repeat(64)}`,
  });

/** As index.ts does it, in the network of a local cluster. */
const register = (stack: StackConfiguration): Promise<Recorded[]> =>
  record(
    () => {
      vi.stubEnv(localNetworkVariable, pulumi.getStack());
      const cluster = connectCluster(stack.cluster);
      return new ContrastRuntime("runtime", {
        image: installerImage(stack.image, cluster.registry),
        groups: stack.groups.map((group) => nodeGroup(group, stack.cluster)),
        kubeconfig: cluster.kubeconfig,
        pullSecret: stack.registry.pullSecret,
        registryCa: stack.registry.ca,
      });
    },
    {
      outputs: ({ type, name }) =>
        type === "command:local:Command" && name === "cluster"
          ? { stdout: '{"kubeconfig": "k", "registry": "10.0.0.1:5000", "networkNamespace": "n", "images": {}}' }
          : {},
      call: () => ({ kubeconfigs: [{ value: "a3ViZQ==" }], properties: { state: "Registered" } }),
    },
  );

const plain = (value: unknown): string => {
  const secret = (value as { secret?: unknown } | undefined)?.secret;
  const text = secret ?? value ?? "";
  return typeof text === "string" ? text : "";
};

describe.each(Object.entries(stacks))("a stack of kind %s", (_, entries) => {
  test("is accepted, and registers commands that run", async () => {
    const commands = (await register(await read(entries))).filter(({ type }) => type.endsWith(":Command"));
    expect(commands.length > 0 || "directory" in (entries.cluster as object)).toBe(true);
    for (const { inputs } of commands)
      expect(existsSync(join(run(plain(inputs.create), plain(inputs.stdin)), "executed"))).toBe(false);
  });

  test.each(texts(entries).map((path) => [path.join("."), path] as const))("%s is refused or data", async (_, path) => {
    for (const text of hostile) {
      let stack: StackConfiguration;
      try {
        stack = await read(replaced(entries, path, text) as Record<string, unknown>);
      } catch (error) {
        expect(error).toBeInstanceOf(Refusal);
        continue;
      }
      for (const { type, inputs } of await register(stack)) {
        if (!type.endsWith(":Command")) continue;
        for (const verb of ["create", "update", "delete"]) {
          const command = [plain(inputs[verb]), plain(inputs.stdin)] as const;
          if (seen.has(command.join("\0"))) continue;
          seen.add(command.join("\0"));
          const root = run(...command);
          expect(existsSync(join(root, "executed")), `${text}: ${plain(inputs[verb])}`).toBe(false);
        }
      }
    }
  });
});

test.each(hostile)("the name of a group, a label, a node's label: %s is refused", async (text) => {
  const { selected, here } = stacks;
  const groups = { [text]: { distribution: "containerd", runtimes } };
  const nodes = { selector: { [text]: "a" } };
  for (const entries of [
    { ...selected, groups },
    { ...selected, groups: { workers: { distribution: "containerd", nodes, runtimes } } },
    { ...here, cluster: { kind: "local", nodes: [{ name: "n1", labels: { [text]: "a" } }] } },
  ]) {
    const named = JSON.stringify(text).slice(0, 100);
    const message = expect.stringMatching(/^The stack's configuration has [^\n]*mistakes?:\n.* must /s);
    await expect(read(entries)).rejects.toMatchObject({ code: "configuration", message });
    await expect(read(entries)).rejects.toThrow(named);
  }
});

test("a word for the shell is exactly its text, whatever it is; NUL, which no word can hold, is refused", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.constantFrom(...hostile), fc.string({ unit: "binary" }))), (words) => {
      const wanted = words.map((word) => word.replaceAll("\0", "").toWellFormed());
      const root = run(`printf '%s\\0' start ${wanted.map(quote).join(" ")} > words`);
      expect(readFileSync(join(root, "words"), "utf8")).toBe(["start", ...wanted, ""].join("\0"));
      rmSync(root, { recursive: true });
    }),
    { numRuns: 30 },
  );
  expect(() => quote("a\0b")).toThrow('"a\\u0000b" has a NUL character, which no command can be given.');
});
