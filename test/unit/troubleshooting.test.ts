import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { describe, expect, test } from "vitest";
import { packageRoot } from "../../tools/files/project.ts";

/*
 * docs/troubleshooting.md has every reason that an installer can report, and what it quotes is what programs say: our own
 * sentences are looked up in the sources, those of others are in a list.
 */
const page = readFileSync(join(packageRoot, "docs", "troubleshooting.md"), "utf8");

/** What kubelet, the scheduler, the API server and Pulumi say; the first three are asked of a real cluster by existing-cluster.test.ts. */
const saidByOthers = [
  'RuntimeClass "…" not found',
  "didn't match Pod's node affinity/selector",
  'no runtime for "…" is configured',
  "context deadline exceeded",
  "RequestTimeout",
  "Insufficient memory",
  "401",
  "x509",
  "no such host",
  "incorrect passphrase",
  "fork/exec … argument list too long",
  "the stack is currently locked by",
  "already exists",
  "ImagePullBackOff",
  "ErrImagePull",
  "FailedCreate",
  "denied the request",
  'no matches for kind "MutatingAdmissionPolicy"',
];

/** Codes of commands that are no reports of a node's state, and of what is found inside of others. */
const elsewhere = ["ready", "starting", "begun", "custom", "ENOENT", "EPERM"];

const sources = ["node-installer", "tools/fleet", "tools/process", "runtime", "components/manifests"].flatMap((room) =>
  readdirSync(join(packageRoot, room), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(packageRoot, room, name)),
);
const trees = sources.map((file) =>
  ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest, true),
);

function visit(node: ts.Node, see: (node: ts.Node) => void): void {
  see(node);
  ts.forEachChild(node, (child) => visit(child, see));
}

/** The texts that an expression can be. */
function texts(node: ts.Node | undefined): string[] {
  if (node === undefined) return [];
  if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) return [node.text];
  if (ts.isConditionalExpression(node)) return [...texts(node.whenTrue), ...texts(node.whenFalse)];
  if (ts.isAsExpression(node) || ts.isParenthesizedExpression(node)) return texts(node.expression);
  return [];
}

/** Codes of Refusals, findings and reports, wherever the installer makes one. */
function reported(): Set<string> {
  const found = new Set<string>();
  for (const tree of trees.filter(({ fileName }) => fileName.includes("node-installer")))
    visit(tree, (node) => {
      const called = ts.isNewExpression(node) || ts.isCallExpression(node) ? node.expression.getText() : "";
      if (
        /^(Refusal|super|error|warning|found)$/.test(called) &&
        (ts.isNewExpression(node) || ts.isCallExpression(node))
      )
        for (const code of (node.arguments?.length ?? 0) > 1 ? texts(node.arguments?.[0]) : []) found.add(code);
      if (ts.isPropertyAssignment(node) && node.name.getText() === "code")
        for (const code of texts(node.initializer)) found.add(code);
      if (ts.isPropertyDeclaration(node) && node.name.getText() === "code")
        for (const code of texts(node.initializer)) found.add(code);
    });
  return new Set([...found].filter((code) => !elsewhere.includes(code)));
}

const codes = reported();

/** A sentence as it is printed, with … for what it is filled with; pieces that are added up are one. */
function sentence(node: ts.Node): string | undefined {
  if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) return node.text;
  if (ts.isTemplateExpression(node))
    return node.head.text + node.templateSpans.map(({ literal }) => `…${literal.text}`).join("");
  if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.PlusToken)
    return (sentence(node.left) ?? "…") + (sentence(node.right) ?? "…");
  return undefined;
}
const sentences = new Set<string>();
for (const tree of trees)
  visit(tree, (node) => {
    const text = sentence(node);
    if (text !== undefined) sentences.add(text.replaceAll(/\{\w+\}/g, "…"));
  });
const all = [...sentences].join("\n");

/** … stands for anything within one sentence. */
const isSaid = (quoted: string): boolean => new RegExp(quoted.split("…").map(escaped).join("[^\\n]*")).test(all);
const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");

const rows = page.split("\n").filter((line) => line.startsWith("| "));
const quotes = rows.flatMap((row) => [...row.matchAll(/(?<![*\w])\*([^*|]+)\*(?!\*)/g)].map(([, text = ""]) => text));
const ours = quotes.filter((text) => !saidByOthers.includes(text));

test("sentences and codes are found", () => {
  expect(quotes).toEqual(expect.arrayContaining(["not active yet", "This node runs CRI-O"]));
  expect([...codes]).toEqual(expect.arrayContaining(["restart-budget", "snp-off", "no-exec", "rollback-failed"]));
});

test("every reason that an installer reports is on the page", () => {
  const listed = new Set(
    rows.flatMap((row) => [...(row.split("|")[1] ?? "").matchAll(/`([a-z0-9-]+)`/g)].map(([, code]) => code)),
  );
  expect([...codes].filter((code) => !listed.has(code)).sort()).toEqual([]);
});

test("the page has no reason that no installer reports", () => {
  const part = page.slice(page.indexOf("## A node"), page.indexOf("| exit code |"));
  const listed = part
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .flatMap((row) => [...(row.split("|")[1] ?? "").matchAll(/`([a-z0-9-]+)`/g)].map(([, code = ""]) => code));
  expect(listed.filter((code) => !codes.has(code) && code !== "unexpected")).toEqual([]);
});

describe("what the page quotes is what the program says", () => {
  test.each(ours)("%s", (quoted) => expect(isSaid(quoted)).toBe(true));
});

test("what others say is quoted, too", () => {
  expect(saidByOthers.filter((text) => !quotes.includes(text))).toEqual([]);
});
