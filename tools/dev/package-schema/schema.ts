import { createRequire } from "node:module";
import ts from "typescript";

/*
 * The schema of the Pulumi package that other languages use, made from the components' types by Pulumi's own analyzer, with
 * what it leaves out: defaults and examples, whole numbers, secrets. A test compares it with the committed one.
 */

export const schemaPath = "schema.json";
const packageName = "contrast-runtime";

interface Shape {
  type?: string;
  $ref?: string;
  plain?: boolean;
  items?: Shape;
  additionalProperties?: Shape;
}

export interface Property extends Shape {
  description?: string;
  secret?: boolean;
}

interface ObjectSchema {
  description?: string;
  properties?: Record<string, Property>;
  required?: string[];
  enum?: { name: string; value: string; description?: string }[];
}

interface ComponentSchema extends ObjectSchema {
  isComponent: boolean;
  inputProperties: Record<string, Property>;
  requiredInputs: string[];
}

export interface PackageSchema {
  name: string;
  language: Record<string, object>;
  functions: Record<string, { description: string; inputs: ObjectSchema; outputs: ObjectSchema }>;
  resources: Record<string, ComponentSchema>;
  types: Record<string, ObjectSchema>;
}

interface Analyzed {
  components: Record<string, unknown>;
  typeDefinitions: Record<string, unknown>;
  dependencies: unknown[];
}
interface Analyzer {
  program: ts.Program;
  checker: ts.TypeChecker;
  analyze(): Analyzed;
}

const require = createRequire(import.meta.url);
// Their declarations are of an older TypeScript and say that the program is private.
const { Analyzer }: { Analyzer: new (dir: string, name: string, manifest: object, names: Set<string>) => Analyzer } =
  require("@pulumi/pulumi/provider/experimental/analyzer.js");
const { generateSchema }: { generateSchema: (...args: unknown[]) => PackageSchema & { version?: string } } =
  require("@pulumi/pulumi/provider/experimental/schema.js");

/** Written by hand: the analyzer knows components alone. YAML itself cannot read JSON. */
const functions: PackageSchema["functions"] = {
  [`${packageName}:index:readManifest`]: {
    description: "Reads a payload's manifest, the document that the lock command writes.",
    inputs: {
      properties: {
        path: {
          type: "string",
          plain: true,
          description: "Relative ones begin at the program's directory. Example: `payloads/kata-go/manifest.json`",
        },
      },
      required: ["path"],
    },
    outputs: {
      properties: {
        manifest: {
          type: "object",
          additionalProperties: { $ref: "pulumi.json#/Any" },
          description: "What components take as `manifest`.",
        },
      },
      required: ["manifest"],
    },
  },
};

/** @param names the components' classes */
export function packageSchema(names: readonly string[], description: string): PackageSchema {
  // It reads the tsconfig.json of this folder, and the components that are named from here.
  const entry = { exports: "../../../components/index.js" };
  const analyzer = new Analyzer(import.meta.dirname, packageName, entry, new Set(names));
  const { components, typeDefinitions, dependencies } = analyzer.analyze();
  const schema = generateSchema(packageName, "", description, components, typeDefinitions, dependencies);
  // The provider adds the package's.
  delete schema.version;
  const tags = documented(analyzer);
  const named = (token: string) => token.replace(/^.*:/, "");
  for (const [token, type] of Object.entries(schema.types)) complete(named(token), type.properties, tags);
  for (const [token, type] of Object.entries(schema.types)) {
    const text = tags.get(named(token));
    if (text !== undefined) type.description = text;
  }
  for (const [token, component] of Object.entries(schema.resources)) {
    complete(`${named(token)}Args`, component.inputProperties, tags);
    complete(named(token), component.properties, tags);
    // The provider marks an output's value itself. Marked here, the SDK for Java does not compile: it asks for an option that
    // components do not have.
    for (const property of Object.values(component.properties ?? {})) delete property.secret;
    component.description = oneLine(component.description ?? "");
  }
  // Otherwise the Go SDK does not compile: its components would take types that it leaves out, those only used plain.
  const go = { ...schema.language.go, generateExtraInputTypes: true };
  return withoutArgs({ ...schema, language: { ...schema.language, go }, functions });
}

/** SDKs end the names of arguments' types with "Args" themselves, as they do those of components' own arguments. */
function withoutArgs(schema: PackageSchema): PackageSchema {
  const isTaken = (token: string) => Object.hasOwn(schema.resources, token);
  const text = JSON.stringify(schema, sorted).replace(
    /"(#\/types\/)?([\w-]+:index:\w+)Args"/g,
    (name, place = "", token: string) => (isTaken(token) ? name : `"${place}${token}"`),
  );
  return JSON.parse(text) as PackageSchema;
}

/** Keys of objects sorted, so that the order of declarations does not matter. */
const sorted = (_: string, value: unknown): unknown =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value;

function complete(owner: string, properties: Record<string, Property> = {}, tags: Map<string, string>): void {
  for (const [name, property] of Object.entries(properties)) {
    const text = tags.get(`${owner}.${name}`);
    if (text !== undefined) property.description = text;
    if (/\b[Aa] secret\b/.test(property.description ?? "")) property.secret = true;
    wholeNumbers(property);
  }
}

/** All of the components' numbers are counts, ports or sizes. `optional` is the analyzer's own note. */
function wholeNumbers(shape: Shape & { optional?: boolean }): void {
  if (shape.type === "number") shape.type = "integer";
  delete shape.optional;
  for (const part of [shape.items, shape.additionalProperties]) if (part !== undefined) wholeNumbers(part);
}

/** What is written above interfaces, classes and their properties, by "Name" and "Name.property". */
function documented({ program, checker }: Analyzer): Map<string, string> {
  const found = new Map<string, string>();
  for (const file of program.getSourceFiles()) {
    if (file.fileName.includes("/node_modules/")) continue;
    file.forEachChild((node) => {
      if (ts.isInterfaceDeclaration(node) || ts.isClassDeclaration(node)) {
        if (node.name === undefined) return;
        const own = comment(node);
        if (own) found.set(node.name.text, own);
        for (const symbol of checker.getTypeAtLocation(node).getProperties()) {
          const [declaration] = symbol.getDeclarations() ?? [];
          const text = declaration && comment(declaration);
          if (text) found.set(`${node.name.text}.${symbol.getName()}`, text);
        }
      } else if (ts.isVariableStatement(node)) {
        const [variable] = node.declarationList.declarations;
        const own = comment(node);
        if (variable && ts.isIdentifier(variable.name) && own) found.set(variable.name.text, own);
      }
    });
  }
  return found;
}

function comment(node: ts.Node): string {
  const parts: string[] = [];
  for (const part of ts.getJSDocCommentsAndTags(node)) {
    if (!ts.isJSDoc(part)) continue;
    const text = ts.getTextOfJSDocComment(part.comment);
    if (text) parts.push(oneLine(text));
    for (const tag of part.tags ?? []) {
      const said = oneLine(ts.getTextOfJSDocComment(tag.comment) ?? "");
      if (tag.tagName.text === "default") parts.push(`Default: ${said}.`);
      if (tag.tagName.text === "example") parts.push(`Example: \`${said}\``);
    }
  }
  return parts.join("\n\n");
}

const oneLine = (text: string): string => text.replace(/\s*\n\s*/g, " ").trim();
