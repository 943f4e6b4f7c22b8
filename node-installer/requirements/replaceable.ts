import { posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { quote } from "../../runtime/shell.ts";
import type { Host } from "../host/host.ts";
import { type Finding, warning } from "./finding.ts";

/*
 * Whether containerd's file can be replaced in one step, which is how it is changed: asked of a node by its installer, and
 * over SSH by components/host-check.sh, in the same words. `{name}` stands for what was found, as a variable there, too.
 * Somebody may have fixed a file on purpose in which everything is as it should be, so that a check only warns.
 */
const sentences = {
  "configuration-mounted":
    "{file} is a mount point of its own (findmnt {file}), so it cannot be replaced in one step. Mount its directory instead of the file, or unmount it and put the file there.",
  "configuration-immutable":
    "{path} has the attribute {attribute} (lsattr -d {path}), so not even root can replace {file}. Somebody set it against programs that rewrite the file: if an installer may, run: chattr -{letter} {path}.",
};
type Code = keyof typeof sentences;

const pieces = (code: Code): string[] => sentences[code].split(/\{(\w+)\}/);
const found = (code: Code, values: Record<string, string>): Finding =>
  warning(
    code,
    pieces(code)
      .map((piece, place) => (place % 2 === 0 ? piece : values[piece]))
      .join(""),
  );
const said = (code: Code): string =>
  `warning ${pieces(code)
    .map((piece, place) => (place % 2 === 0 ? quote(piece) : `"$${piece}"`))
    .join("")}`;

/** What keeps the file from being replaced; undefined: nothing, or it cannot be asked on this host, and shows later. */
export async function unreplaceable(host: Host, file: string): Promise<Finding | undefined> {
  if (await isMountPoint(host, file)) return found("configuration-mounted", { file });
  // What must not change is the file, or else the entries of its directory.
  for (const path of [file, posix.dirname(file)]) {
    const letter = await fixingAttribute(host, path);
    if (letter !== undefined) return found("configuration-immutable", { file, path, letter, attribute: names[letter] });
  }
  return undefined;
}

/** The same for a script; see host-check.sh. */
export const replaceableScript = (file: string): string => `file=${quote(file)}
if mounted "$file"; then
  ${said("configuration-mounted")}
else
  for path in "$file" "\${file%/*}"; do
    letter=$(fixing_attribute "$path")
    case $letter in i) attribute=${quote(names.i)} ;; a) attribute=${quote(names.a)} ;; *) continue ;; esac
    ${said("configuration-immutable")}
    break
  done
fi`;

/** For a file that has to be changed, before anything depends on that. */
export async function requireReplaceable(host: Host, file: string): Promise<void> {
  const finding = await unreplaceable(host, file);
  if (finding !== undefined) throw new Refusal(finding.code, finding.message);
}

async function isMountPoint(host: Host, file: string): Promise<boolean> {
  // In a pod, only a program that runs in the host's root sees the host's paths in it.
  const { code, stdout } = await host.run("cat", ["/proc/self/mountinfo"]);
  if (code !== 0) return false;
  const escaped = file.replaceAll(/[ \t\n\\]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return stdout.split("\n").some((line) => line.split(" ")[4] === escaped);
}

const names = { i: "i (immutable)", a: "a (append only)" };

async function fixingAttribute(host: Host, path: string): Promise<keyof typeof names | undefined> {
  const { code, stdout } = await host.run("lsattr", ["-d", path]);
  const [, flags = ""] = (code === 0 ? /^([-A-Za-z]+)\s/.exec(stdout) : null) ?? [];
  return flags.includes("i") ? "i" : flags.includes("a") ? "a" : undefined;
}
