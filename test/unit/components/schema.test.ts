import { dirname, join } from "node:path";
import { Analyzer } from "@pulumi/pulumi/provider/experimental/analyzer.js";
import ts from "typescript";
import { beforeAll, describe, expect, test } from "vitest";
import { onDestroyValues } from "../../../components/config/defaults.ts";
import * as words from "../../../components/words.ts";
import { distributionNames, platformNames } from "../../../runtime/spec.ts";

/* What the components' types say to others: to the packages of other languages, which Pulumi's analyzer makes, and to readers. */

const clone = join(import.meta.dirname, "..", "..", "..");
const names = [
  "AksCocoNodePool",
  "BareMetalNodes",
  "ConfidentialWorkload",
  "ContrastRuntime",
  "LocalCluster",
  "NodeInstaller",
  "RuntimeClasses",
];

describe("Pulumi's component analyzer", () => {
  let schema: ReturnType<Analyzer["analyze"]>;
  beforeAll(() => {
    const entry = { name: "contrast-runtime", exports: "./components/index.ts" };
    schema = new Analyzer(clone, "contrast-runtime", entry, new Set(names)).analyze();
  }, 600_000);

  test("accepts every component", () => {
    expect(Object.keys(schema.components).sort()).toEqual(names);
  });

  test("sees which arguments must be plain, and which words they may be", () => {
    const { inputs, outputs } = schema.components.NodeInstaller ?? {};
    expect(inputs?.group).toMatchObject({ type: "string", plain: true });
    expect(inputs?.image).not.toHaveProperty("plain");
    expect(inputs?.onDestroy).toMatchObject({ $ref: "#/types/contrast-runtime:index:OnDestroy", optional: true });
    expect(outputs).toHaveProperty("specHash.type", "string");
    expect(Object.keys(outputs ?? {})).toEqual(["specHash"]);
    expect(schema.typeDefinitions.OnDestroy).toMatchObject({
      enum: [
        { name: "Uninstall", value: "uninstall" },
        { name: "Leave", value: "leave" },
      ],
    });
    expect(schema.components.ContrastRuntime?.outputs.runtimes).toMatchObject({
      type: "array",
      items: { $ref: "#/types/contrast-runtime:index:InstalledRuntime" },
    });
  });
});

test("enumerations have the words that are checked", () => {
  expect(Object.values(words.PlatformName).toSorted()).toEqual(platformNames.toSorted());
  expect(Object.values(words.DistributionName).toSorted()).toEqual(distributionNames.toSorted());
  expect(Object.values(words.OnDestroy).toSorted()).toEqual(onDestroyValues.toSorted());
});

test("every argument and output that a program may use says what it is, and every optional one its default", () => {
  const index = join(clone, "components", "index.ts");
  const config = ts.getParsedCommandLineOfConfigFile(join(clone, "tsconfig.json"), {}, {
    ...ts.sys,
    onUnRecoverableConfigFileDiagnostic: () => {},
  } as ts.ParseConfigFileHost);
  const program = ts.createProgram([index], config?.options ?? {});
  const checker = program.getTypeChecker();
  const file = program.getSourceFile(index);
  const module = file && checker.getSymbolAtLocation(file);
  if (!module) throw new Error("components/index.ts is no module");
  const undocumented = checker.getExportsOfModule(module).flatMap((exported) => {
    const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
    const declaration = symbol.declarations?.find(
      (each) => ts.isInterfaceDeclaration(each) || ts.isClassDeclaration(each),
    );
    if (!declaration || dirname(declaration.getSourceFile().fileName) !== dirname(index)) return [];
    return declaration.members.filter(isPublicProperty).flatMap((member) => {
      const property = checker.getSymbolAtLocation(member.name);
      const tags = property?.getJsDocTags(checker).map(({ name }) => name) ?? [];
      const says = (property?.getDocumentationComment(checker).length ?? 0) > 0;
      const complete = says && (member.questionToken === undefined || tags.includes("default"));
      return complete ? [] : [`${symbol.name}.${member.name.getText()}`];
    });
  });
  expect(undocumented).toEqual([]);
}, 600_000);

const isPublicProperty = (member: ts.Node): member is ts.PropertySignature | ts.PropertyDeclaration =>
  (ts.isPropertySignature(member) || ts.isPropertyDeclaration(member)) && !ts.isPrivateIdentifier(member.name);
