import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { Ajv } from "ajv";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import type * as z from "zod";
import { installerPod } from "../../../../components/config/installer-pod-schema.ts";
import { guestRegistry } from "../../../../components/config/registry-schema.ts";
import { runtime } from "../../../../components/config/runtime-schema.ts";
import { groupSchema, topLevel } from "../../../../components/config/schema.ts";
import { referenceTable, schemaPath, stackFileSchema } from "../../../../tools/dev/stack-schema.ts";
import { packageRoot } from "../../../../tools/files/project.ts";
import { withSecrets } from "../../../example-secrets.ts";
import { images, malformed } from "../../components/config/malformed-cases.ts";
import {
  inPlainEntries,
  missing,
  outOfRange,
  plainSecrets,
  unknownKeys,
  unknownWords,
  wrongTypes,
} from "../../components/config/shape-cases.ts";
import {
  type Entries,
  host,
  kubeconfigCluster,
  localCluster,
  stack,
  withGroup,
  withPool,
} from "../../components/config/stacks.ts";

const update = process.env.GOLDEN === "update";
const committed = join(packageRoot, schemaPath);

test("the committed schema is what the program checks", () => {
  const text = `${JSON.stringify(stackFileSchema(), null, 2)}\n`;
  if (update) writeFileSync(committed, text);
  expect(readFileSync(committed, "utf8"), "run with GOLDEN=update and review the diff").toBe(text);
});

const pages: [page: string, tables: Record<string, Record<string, z.ZodType>>][] = [
  ["docs/configuration.md", { key: topLevel, "key of a group": groupSchema.shape }],
  ["docs/integrations.md", { "key of `installerPod`": installerPod.shape }],
  ["docs/runtimes.md", { "key of a runtime": runtime.shape, "key of `registry.guest`": guestRegistry.shape }],
];
test.each(pages)("the tables of keys in %s are the schema's", (name, shapes) => {
  const page = join(packageRoot, name);
  const written = /^\| (key|key of [^|]+) \| default \| meaning \|\n(\|.*\n)+/gm;
  const tables = Object.fromEntries(
    Object.entries(shapes).map(([head, shape]) => [
      head,
      `${referenceTable(shape).replace("| key |", `| ${head} |`)}\n`,
    ]),
  );
  const text = readFileSync(page, "utf8");
  if (update)
    writeFileSync(
      page,
      text.replace(written, (table, head) => tables[head] ?? table),
    );
  expect(readFileSync(page, "utf8").match(written), "run with GOLDEN=update and review the diff").toEqual(
    Object.values(tables),
  );
});

const validate = new Ajv({ allErrors: true }).compile(JSON.parse(readFileSync(committed, "utf8")));
const mistakes = (file: unknown): string[] =>
  validate(file) ? [] : (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);

const stackFiles = readdirSync(join(packageRoot, "examples"))
  .filter((name) => name.startsWith("Pulumi."))
  .map((name) => `examples/${name}`)
  .concat("Pulumi.dev.yaml", "Pulumi.dev-vm.yaml");

describe.each(stackFiles)("%s", (file) => {
  const text = readFileSync(join(packageRoot, file), "utf8");

  test("is valid", () => {
    expect(mistakes(withSecrets(text, () => ({ secure: "v1:x" })))).toEqual([]);
  });

  test("tells editors where the schema is", () => {
    const [, path = ""] = /^# yaml-language-server: \$schema=(\S+)\n/.exec(text) ?? [];
    expect(relative(packageRoot, resolve(packageRoot, dirname(file), path))).toBe(schemaPath);
    expect(existsSync(join(packageRoot, schemaPath))).toBe(true);
  });
});

test("the stack in the README is valid", () => {
  const [, block = ""] = /^```yaml\n([\s\S]*?)^```/m.exec(readFileSync(join(packageRoot, "README.md"), "utf8")) ?? [];
  expect(block).toContain("runtimes:");
  expect(mistakes(parse(block.replace("…", "a".repeat(64))))).toEqual([]);
});

const secretKeys = ["kubeconfig", "pullSecret", "privateKey", "joinCommand"];
/** As `pulumi config set --secret --path` writes it. */
const encrypted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(encrypted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, child]) => [
      key,
      secretKeys.includes(key) && typeof child === "string" ? { secure: `v1:${child}` } : encrypted(child),
    ]),
  );
};
const stackFile = (entries: Entries): unknown => ({
  config: Object.fromEntries(
    Object.entries(entries)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [`contrast-runtime:${key}`, JSON.parse(JSON.stringify(value))]),
  ),
});

describe.each(
  Object.entries({ unknownKeys, missing, wrongTypes, unknownWords, outOfRange, malformed, images, inPlainEntries }),
)("what the program refuses, the schema refuses: %s", (_kind, cases) => {
  test.each(cases)("%s", (_what, entries) => {
    expect(mistakes(encrypted(stackFile(entries)))).not.toEqual([]);
  });
});

test.each(plainSecrets)("a plain %s is refused", (_what, entries) => {
  expect(mistakes(stackFile(entries))).not.toEqual([]);
  expect(mistakes(encrypted(stackFile(entries)))).toEqual([]);
});

const ssh = { privateKey: { secure: "v1:x" } };
const fine: [string, unknown][] = [
  ["an entry that is encrypted as a whole", stackFile(stack({ cluster: { secure: "v1:x" } }))],
  ["an encrypted value that need not be", stackFile(withGroup({ nodes: { names: [{ secure: "v1:x" }] } }))],
  ["hosts", stackFile(withGroup({ nodes: { hosts: [host], ssh, joinCommand: { secure: "v1:x" } } }))],
  ["a kubeconfig", stackFile(stack({ cluster: { ...kubeconfigCluster, kubeconfig: { secure: "v1:x" } } }))],
  ["a pool", stackFile(withPool({ zones: ["1", "2"], maxPods: 30, labels: { a: "b" } }))],
  ["a local cluster", stackFile(localCluster([{ name: "a", containerd: "1.7" }, { name: "b" }]))],
  [
    "keys of Pulumi and other packages",
    {
      secretsprovider: "azurekeyvault://v/keys/k",
      encryptedkey: "x",
      encryptionsalt: "v1:x",
      config: { ...Object(stackFile(stack())).config, "kubernetes:namespace": "x", "pulumi:tags": { a: "b" } },
    },
  ],
  ["an environment that brings the keys", { environment: ["prod"] }],
];
test.each(fine)("no mistake: %s", (_what, file) => {
  expect(mistakes(file)).toEqual([]);
});

test.each([
  ["a key of Pulumi that is misspelled", { encryptionSalt: "v1:x", ...Object(stackFile(stack())) }],
  ["no configuration", {}],
  [
    "a key without the project's name",
    { config: { cluster: kubeconfigCluster, ...Object(stackFile(stack())).config } },
  ],
])("refused: %s", (_what, file) => {
  expect(mistakes(file)).not.toEqual([]);
});
