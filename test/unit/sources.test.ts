import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import ts from "typescript";
import { expect, test } from "vitest";
import { packageRoot } from "../../tools/files/project.ts";

/* What holds of the sources as a whole, and no linter looks at. */

const rooms = ["runtime", "measure", "workload", "node-installer", "components", "review", "tools", "test"];
const files = rooms
  .flatMap((room) => readdirSync(join(packageRoot, room), { recursive: true, withFileTypes: true }))
  .filter((entry) => entry.isFile() && !entry.parentPath.includes("node_modules"))
  .map((entry) => join(entry.parentPath, entry.name));
const sources = files.filter((file) => /\.m?ts$/.test(file)).concat(join(packageRoot, "index.ts"));
const shellScripts = files.filter((file) => file.endsWith(".sh"));
const named = (file: string): string => relative(packageRoot, file).replaceAll("\\", "/");
const textOf = (file: string): string => readFileSync(file, "utf8");

/** What people read from the beginning to the end, beside the sources. */
const pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].concat(
  readdirSync(join(packageRoot, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
);

test("no file is longer than 400 lines", () => {
  const read = [...sources, ...shellScripts, ...pages.map((page) => join(packageRoot, page))];
  const long = read.filter((file) => textOf(file).split("\n").length - 1 > 400).map(named);
  expect(long).toEqual([]);
});

/** Files whose exports are for somebody outside of this repository. */
const forOthers = [
  "components/index.ts", // other programs
  "components/provider.ts", // the engine
  "index.ts", // the stack's outputs
  "test/global-setup.ts", // Vitest
];

test("a value that a file exports is imported by another one", () => {
  const used = new Set(sources.flatMap((file) => [...imports(file)]));
  const unused = sources
    .filter((file) => !forOthers.includes(named(file)))
    .flatMap((file) => exports(file).map((name) => ({ file, name })))
    .filter(({ file, name }) => !used.has(`${file} ${name}`));
  expect(unused.map(({ file, name }) => `${named(file)}: ${name}`)).toEqual([]);
});

function parse(file: string): ts.SourceFile {
  return ts.createSourceFile(file, textOf(file), ts.ScriptTarget.Latest, true);
}

function exports(file: string): string[] {
  return parse(file).statements.flatMap((statement) => {
    if (ts.isExportDeclaration(statement) && statement.exportClause && ts.isNamedExports(statement.exportClause))
      return statement.exportClause.elements.map(({ name }) => name.text);
    // A type may be there for what another export's signature says.
    if (ts.isInterfaceDeclaration(statement) || ts.isTypeAliasDeclaration(statement)) return [];
    const isExported = ts.canHaveModifiers(statement) && ts.getModifiers(statement)?.some(isExportKeyword);
    if (!isExported) return [];
    if (ts.isVariableStatement(statement))
      return statement.declarationList.declarations.flatMap(({ name }) => boundNames(name));
    const { name } = statement as ts.DeclarationStatement;
    return name && ts.isIdentifier(name) ? [name.text] : [];
  });
}

const isExportKeyword = ({ kind }: ts.ModifierLike): boolean => kind === ts.SyntaxKind.ExportKeyword;

const boundNames = (name: ts.BindingName): string[] =>
  ts.isIdentifier(name)
    ? [name.text]
    : name.elements.flatMap((element) => (ts.isOmittedExpression(element) ? [] : boundNames(element.name)));

/** "file name" of whatever a file imports of another. Of a module as a whole: each name that the file says anywhere. */
function* imports(file: string): Iterable<string> {
  const source = parse(file);
  const wholes: string[] = [];
  const words = new Set<string>();
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isIdentifier(node)) words.add(node.text);
    const from = moduleOf(node);
    if (from !== undefined) {
      const target = join(dirname(file), from);
      const names = namesOf(node);
      if (names === undefined) wholes.push(target);
      else found.push(...names.map((name) => `${target} ${name}`));
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  yield* found;
  for (const whole of wholes) for (const word of words) yield `${whole} ${word}`;
}

/** The file of this repository that an import, a re-export or a call of `import()` names. */
function moduleOf(node: ts.Node): string | undefined {
  const specifier =
    ts.isImportDeclaration(node) || ts.isExportDeclaration(node)
      ? node.moduleSpecifier
      : ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword
        ? node.arguments[0]
        : undefined;
  return specifier && ts.isStringLiteral(specifier) && specifier.text.startsWith(".") ? specifier.text : undefined;
}

/** Undefined if the module is imported as a whole. */
function namesOf(node: ts.Node): string[] | undefined {
  const bindings = ts.isImportDeclaration(node)
    ? node.importClause?.namedBindings
    : ts.isExportDeclaration(node)
      ? node.exportClause
      : undefined;
  if (!bindings || !(ts.isNamedImports(bindings) || ts.isNamedExports(bindings))) return undefined;
  return bindings.elements.map(({ name, propertyName }) => (propertyName ?? name).text);
}
