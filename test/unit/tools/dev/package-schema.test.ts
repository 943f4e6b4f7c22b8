import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { beforeAll, describe, expect, test } from "vitest";
import * as api from "../../../../components/index.ts";
import { components } from "../../../../components/provider.ts";
import { breakingChanges } from "../../../../tools/dev/package-schema/breaking.ts";
import { referencePages } from "../../../../tools/dev/package-schema/reference.ts";
import { type PackageSchema, packageSchema, schemaPath } from "../../../../tools/dev/package-schema/schema.ts";
import { packageRoot } from "../../../../tools/files/project.ts";

const file = join(packageRoot, schemaPath);
const { description } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { description: string };
const read = (path: string) => readFileSync(path, "utf8");
const committed = JSON.parse(read(file)) as PackageSchema;

/** Pulumi's analyzer refuses what other languages could not express, such as unions: then this throws. */
let made: PackageSchema;
beforeAll(() => {
  made = packageSchema(Object.keys(components), description);
  if (process.env.GOLDEN !== "update") return;
  for (const change of breakingChanges(committed, made)) console.log(`breaks programs in other languages: ${change}`);
  writeFileSync(file, `${JSON.stringify(made, null, 2)}\n`);
  for (const [path, text] of Object.entries(referencePages(made))) writeFileSync(join(packageRoot, path), text);
}, 900_000);

test("the committed schema is that of the components: nothing that programs in other languages use has gone", () => {
  expect(breakingChanges(committed, made), "breaks programs in other languages: a new version must say so").toEqual([]);
  expect(`${JSON.stringify(made, null, 2)}\n`, "run with GOLDEN=update and review the diff").toBe(read(file));
});

test("so are the pages with every field, and none is without a meaning", () => {
  for (const [path, text] of Object.entries(referencePages(made))) {
    expect(read(join(packageRoot, path)), `${path}: run with GOLDEN=update and review the diff`).toBe(text);
    expect(text, path).not.toMatch(/\| +\|$/m);
  }
});

test("SDKs, which add it, have no type whose name ends with Args twice; one has a component's name without it", () => {
  const names = Object.keys(made.types).filter((token) => token.endsWith("Args"));
  expect(names).toEqual(["contrast-runtime:index:AksCocoNodePoolArgs"]);
});

test("every component that TypeScript has is in it", () => {
  const exported = Object.entries(api).flatMap(([name, value]) =>
    typeof value === "function" && value.prototype instanceof pulumi.ComponentResource ? name : [],
  );
  expect(Object.keys(components)).toEqual(exported.sort());
  expect(Object.keys(made.resources).map((token) => token.replace("contrast-runtime:index:", ""))).toEqual(
    Object.keys(components),
  );
});

test("what is said to be a secret is one in every language, and no number is a fraction", () => {
  // Java's SDK does not compile with an output that is: the provider says that of the value.
  const outputs = Object.values(made.resources).flatMap(({ properties = {} }) => Object.values(properties));
  expect(outputs.filter(({ secret }) => secret)).toEqual([]);
  const secrets = Object.entries(made.resources).flatMap(([token, { inputProperties }]) =>
    Object.entries(inputProperties).flatMap(([name, { secret }]) => (secret ? `${token.split(":")[2]}.${name}` : [])),
  );
  expect(secrets).toEqual([
    "BareMetalNodes.joinCommand",
    "BareMetalNodes.privateKey",
    "ContrastRuntime.kubeconfig",
    "ContrastRuntime.pullSecret",
    "NodeInstaller.kubeconfig",
  ]);
  expect(JSON.stringify(made)).not.toContain('"type":"number"');
});

describe("a schema breaks programs", () => {
  const group = "contrast-runtime:index:NodeGroup";
  const runtime = "contrast-runtime:index:ContrastRuntime";
  const changed = (change: (schema: PackageSchema) => void) => {
    const copy = structuredClone(committed);
    change(copy);
    return breakingChanges(committed, copy);
  };
  const type = (schema: PackageSchema, token: string) => schema.types[token] ?? {};
  const component = (schema: PackageSchema) => {
    const found = schema.resources[runtime];
    if (found === undefined) throw new Error("there is no ContrastRuntime");
    return found;
  };

  test.each<[what: string, change: (schema: PackageSchema) => void, sentence: string]>([
    ["without a component", (schema) => delete schema.resources[runtime], `${runtime} is gone`],
    [
      "without an argument",
      (schema) => delete component(schema).inputProperties.image,
      `${runtime}, argument image is gone`,
    ],
    [
      "without an output",
      (schema) => delete component(schema).properties?.handlers,
      `${runtime}, output handlers is gone`,
    ],
    [
      "that asks for more",
      (schema) => component(schema).requiredInputs.push("pullSecret"),
      `${runtime}, argument pullSecret must be given`,
    ],
    [
      "that makes an argument plain",
      (schema) => Object.assign(component(schema).inputProperties.image ?? {}, { plain: true }),
      `${runtime}, argument image was string and is plain string`,
    ],
    [
      "with a field of another type",
      (schema) => Object.assign(type(schema, group).properties?.minimumNodes ?? {}, { type: "string" }),
      `${group} minimumNodes was integer and is string`,
    ],
    [
      "without a word",
      (schema) => type(schema, "contrast-runtime:index:OnDestroy").enum?.pop(),
      `contrast-runtime:index:OnDestroy: "leave" is gone`,
    ],
  ])("%s", (_, change, sentence) => {
    expect(changed(change)).toEqual([sentence]);
  });

  test("not with what is added", () => {
    const added = (schema: PackageSchema) => {
      Object.assign(component(schema).inputProperties, { more: { type: "string" } });
      Object.assign(schema.types, { "contrast-runtime:index:More": { properties: {} } });
    };
    expect(changed(added)).toEqual([]);
  });
});
