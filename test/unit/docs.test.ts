import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { kataFacts } from "../../runtime/kata-versions.ts";

// What the documents name is there. Whether it is true, only readers can tell.
const clone = resolve(import.meta.dirname, "../..");
const text = (file: string) => readFileSync(join(clone, file), "utf8");
const folders = (directory: string) =>
  readdirSync(join(clone, directory), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);

const documents = [
  ...readdirSync(clone).filter((name) => name.endsWith(".md")),
  ...["docs", ".github"].flatMap((directory) =>
    readdirSync(join(clone, directory), { recursive: true, encoding: "utf8" })
      .map((name) => `${directory}/${name.replaceAll("\\", "/")}`)
      .filter((name) => name.endsWith(".md")),
  ),
];
const notOurs = new Set(text(".gitignore").match(/^[\w.]+(?=\/$)/gm));
const rooms = folders(".").filter((name) => !name.startsWith(".") && !notOurs.has(name));

/** What `npm run engine -- --pin` writes: docs/review.md says that it does not come with the repository. */
const written = ["tools/engine/checksums.txt"];

/** The words of a document that begin with a room of the repository, or of `test/`, and go on like a path. */
function paths(markdown: string): string[] {
  const code = [...markdown.matchAll(/^```sh\n([\s\S]*?)^```|`([^`\n]+)`/gm)].map(
    ([, block, span]) => block ?? span ?? "",
  );
  return code
    .flatMap((words) => words.split(/[\s'"=]+/))
    .filter((word) => /^[\w.-]+\/[\w./-]*$/.test(word))
    .flatMap((word) => {
      const [room = ""] = word.split("/");
      if (rooms.includes(room) || room === ".github") return [word];
      return folders("test").includes(room) ? [`test/${word}`] : [];
    });
}

/** GitHub's names of a document's headings. */
const anchors = (markdown: string) =>
  [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );

test("there are documents, and they name paths", () => {
  expect(documents).toEqual(expect.arrayContaining(["README.md", "CONTRIBUTING.md", "docs/decisions/README.md"]));
  expect(paths(text("SECURITY.md"))).toContain("test/cluster/privileges.test.ts");
});

describe.each(documents)("%s", (document) => {
  const markdown = text(document);

  test("its links lead somewhere", () => {
    const targets = [...markdown.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => target);
    const broken = targets.filter((target) => {
      if (/^https?:/.test(target)) return !(target.startsWith("https://") && URL.canParse(target));
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? document : join(dirname(document), path);
      return !existsSync(join(clone, file)) || (anchor !== undefined && !anchors(text(file)).includes(anchor));
    });
    expect(broken).toEqual([]);
  });

  test("the paths that it names exist", () => {
    const missing = paths(markdown).filter((path) => !existsSync(join(clone, path)) && !written.includes(path));
    expect(missing).toEqual([]);
  });

  test("the npm scripts that it names exist", () => {
    const { scripts } = JSON.parse(text("package.json")) as { scripts: Record<string, string> };
    const named = [...markdown.matchAll(/\bnpm (?:run (?:--silent )?([\w:-]+)|(start|stop|test)\b)/g)];
    const unknown = named.map(([, script, own]) => script ?? own ?? "").filter((name) => !Object.hasOwn(scripts, name));
    expect(unknown).toEqual([]);
  });
});

describe("the dependencies that CONTRIBUTING.md says are held back", () => {
  const [, section = ""] = /^- \*\*Dependencies\*\*([\s\S]*?)^- \*\*/m.exec(text("CONTRIBUTING.md")) ?? [];
  const said = [...section.matchAll(/^ {2}- `([^`]+)` ((?:below )?\d+)\b/gm)].map(([, name = "", major = ""]) => ({
    name,
    major,
  }));
  const packageOf = (name: string): Package => JSON.parse(text(join("node_modules", name, "package.json")));

  test("are in package.json, in the major version that it says", () => {
    const { dependencies, devDependencies } = JSON.parse(text("package.json")) as Package;
    const all: Record<string, string> = { ...dependencies, ...devDependencies };
    const fits = ({ name, major }: (typeof said)[number]) => {
      const [is, than] = [Number.parseInt(all[name] ?? "", 10), Number.parseInt(major.replace("below ", ""), 10)];
      return major.startsWith("below") ? is < than : is === than;
    };
    expect(said.map(({ name }) => name)).toEqual(["typescript", "google-protobuf"]);
    expect(said.filter((one) => !fits(one))).toEqual([]);
  });

  test("are held back by what it says", () => {
    const sdk = packageOf("@pulumi/pulumi");
    const ranges = {
      typescript: sdk.peerDependencies?.typescript,
      "google-protobuf": sdk.dependencies?.["google-protobuf"],
    };
    expect(ranges).toEqual({
      typescript: expect.stringMatching(/ < 7$/),
      "google-protobuf": expect.stringMatching(/^\^3\./),
    });
  });
});

interface Package {
  dependencies?: Record<string, string>;
  devDependencies?: Record<string, string>;
  peerDependencies?: Record<string, string>;
}

describe("the map of rooms in CONTRIBUTING.md", () => {
  const rows = text("CONTRIBUTING.md")
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").map((cell) => [...cell.matchAll(/`([\w.-]+)\/`/g)].map(([, name = ""]) => name)));

  test("has every folder of the repository, and no other", () => {
    const mapped = rows.flatMap(([, room]) => (room?.length === 1 ? room : []));
    expect([...new Set(mapped)].sort()).toEqual([...rooms].sort());
  });

  test.each(["components", "node-installer", "review", "tools", "test"])("has every folder of %s/", (room) => {
    const begin = rows.findLastIndex(([, first]) => first?.[0] === room);
    const rest = rows.slice(begin + 1);
    const end = rest.findIndex(([, first]) => first?.length !== 0);
    const mapped = [rows[begin], ...rest.slice(0, end < 0 ? undefined : end)].flatMap((row) => row?.[2] ?? []);
    expect(mapped.toSorted()).toEqual(folders(room).sort());
  });
});

test.each(["README.md", "docs/attestation.md", "docs/library.md"])(
  "%s shows payloads whose launch values are computed",
  (file) => {
    const versions = [...text(file).matchAll(/payloads\/[\w-]+-kata-(?:go|rs)-([\d.]+)\.json/g)].map(
      ([, version = ""]) => version,
    );
    expect(versions).not.toEqual([]);
    expect(versions.filter((version) => !kataFacts(version).commandLineKnown)).toEqual([]);
  },
);
