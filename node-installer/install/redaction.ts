import { posix } from "node:path";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { handlerName } from "../../runtime/spec.ts";
import { outlineAgent } from "../containerd/agent.ts";
import { outline } from "../containerd/outline.ts";
import type { ServingState } from "../containerd/serving.ts";
import { outlineArguments } from "../containerd/started.ts";
import { outlineEnvironment, outlineUnit } from "../containerd/unit.ts";
import { versionInOutput } from "../containerd/version.ts";
import type { Answer, Bundle, Calls, Redaction } from "../host/bundle.ts";
import { journalPath, outlineJournal } from "../host/journal.ts";
import { cpuFlags } from "../requirements/host-facts.ts";
import { outlineKubelet } from "../requirements/kubelet-configuration.ts";
import { runtimesDirectory } from "./payload.ts";

/** What a daemon serves of our handlers; a setting that is none of ours is replaced, so that it still differs from them. */
export function servedOfOurs({ handlers }: ServingState): NonNullable<Bundle["serving"]> {
  const like = (pattern: RegExp, value: string) => (pattern.test(value) ? value : "other");
  const below = (value: unknown) => like(/^\/opt\/edgeless\/[\w./-]{1,255}$/, typeof value === "string" ? value : "");
  const annotations = (all: string[]) => all.slice(0, 100).map((one) => like(/^[\w.*/-]{0,200}$/, one));
  return {
    handlers: Object.fromEntries(
      Object.entries(handlers)
        .filter(([name]) => handlerName.safeParse(name).success)
        .map(([name, served]) => [
          name,
          {
            runtimeType: like(/^[\w.-]{0,100}$/, served.runtimeType),
            runtimePath: below(served.runtimePath),
            podAnnotations: annotations(served.podAnnotations),
            containerAnnotations: annotations(served.containerAnnotations),
            privilegedWithoutHostDevices: served.privilegedWithoutHostDevices,
            snapshotter: like(/^[\w-]{0,64}$/, served.snapshotter),
            options: Object.fromEntries(
              Object.entries(served.options).map(([key, value]) => [
                key === "ConfigPath" ? key : "other",
                below(value),
              ]),
            ),
          },
        ]),
    ),
  };
}

/** Bytes of a file, and of a whole bundle: many times what a real one has. */
const longestFile = 1 << 20;
const longestBundle = 4 << 20;

/** What processes say of themselves, and what they have mounted, never leaves the node. */
const ofProcesses = /^\/proc(?:$|\/(?:\d+|self|thread-self)(?:\/|$))/;
const mountinfo = "/proc/self/mountinfo";

/**
 * What of a node's files and of its programs' answers leaves it: only what a plan reads. What is not named here stays, and
 * a file that is none of those named is taken for a configuration of containerd's, of which only the outline leaves.
 *
 * @param known texts that may leave as they are: the files that the install spec itself holds
 */
export function redaction(known: Iterable<string>): Redaction & { finish(calls: Calls): void } {
  const digests = new Map<string, string>();
  const verbatim = new Set([...known].map((text) => sha256(text)));
  return {
    about: (path) => !ofProcesses.test(path),
    digest: (path) => path.startsWith(`${runtimesDirectory}/`),
    file(path, bytes) {
      if (path === mountinfo) return Buffer.from(outlineMounts(bytes.toString("utf8")));
      if (ofProcesses.test(path)) return undefined;
      const digest = sha256(bytes);
      if (verbatim.has(digest)) return bytes;
      if (bytes.length > longestFile) return "omitted";
      const left = outlineOf(path, bytes);
      digests.set(digest, sha256(left));
      return left;
    },
    output(command, args, { code, stdout }) {
      const quiet = { code, stdout: "", stderr: "" };
      if (args.length === 1 && args[0] === "--version") {
        const version = versionInOutput(stdout);
        const isPlain = version !== undefined && /^\d+\.\d+\.\d+[\w.+~-]{0,60}$/.test(version);
        return isPlain ? { ...quiet, stdout: `containerd - ${version}\n` } : quiet;
      }
      if (command === "systemctl" && args[0] === "is-active") return quiet;
      if (command === "cat" && args.join() === mountinfo) return { ...quiet, stdout: outlineMounts(stdout) };
      return undefined;
    },
    finish(calls) {
      keepMountsOf(calls);
      const journal = calls[`readFile ${journalPath}`];
      if (isText(journal)) journal.text = outlineJournal(journal.text, (digest) => digests.get(digest));
      const size = JSON.stringify(calls).length;
      if (size <= longestBundle) return;
      throw new Refusal(
        "bundle-too-large",
        `This node's bundle would be ${size} bytes long, where ${longestBundle} are expected at most: look for files of containerd's configuration that are not meant to be there.`,
      );
    },
  };
}

function outlineOf(path: string, bytes: Buffer): Buffer {
  const text = bytes.toString("utf8");
  // As it is until the digests of all other files are known.
  if (path === journalPath) return bytes;
  if (path === "/proc/cmdline") return Buffer.from(outlineParameters(text));
  if (path === "/proc/cpuinfo") return Buffer.from(outlineProcessor(text));
  if (/^\/(?:sys|proc\/sys)\//.test(path)) return Buffer.from(/^[\w.+~\s-]{0,4096}$/.test(text) ? text : "");
  if (/^\/(?:etc|usr\/lib)\/os-release$/.test(path)) {
    return Buffer.from(/^ID=["']?[\w.-]{1,64}["']?$/m.exec(text)?.[0] ?? "");
  }
  const isEnvironment = environmentFile.test(path);
  if (!isEnvironment && /\/systemd\/system\/[^/]+(?:\/[^/]+)?$/.test(path)) return Buffer.from(outlineUnit(text));
  // Some of these files say something of more than one kind.
  const parts = [outlineKubelet(path, text), outlineAgent(path, text), outlineArguments(path, text)];
  if (isEnvironment) parts.push(outlineEnvironment(text));
  const kept = parts.filter((part) => part !== undefined);
  return kept.length === 0 ? outline(bytes, path) : Buffer.from(kept.join(""));
}

const environmentFile = /^\/etc\/(?:default|sysconfig)\/|^\/etc\/environment$|^\/run\/metadata\/|\.env$/;

const parameters =
  /^(?:(?:amd_|intel_)?iommu|iommu\.passthrough|kvm[-_]amd\.sev(?:[-_]snp)?|mem_encrypt|kvm[-_]intel\.tdx)$/;
const settings = new Set(["off", "on", "pt", "nopt", "pgtbl_v1", "pgtbl_v2", "0", "1", "y", "Y", "n", "N"]);

/** The parameters that the host check looks at; of their values those that mean something to it. */
function outlineParameters(text: string): string {
  const kept = text.split(/\s+/).flatMap((word) => {
    if (word === "nohibernate") return word;
    const [name = "", ...value] = word.split("=");
    if (!parameters.test(name) || value.length === 0) return [];
    const parts = value.join("=").split(",", 20);
    return `${name}=${parts.map((part) => (settings.has(part) ? part : "other")).join()}`;
  });
  return `${kept.join(" ")}\n`;
}

function outlineProcessor(text: string): string {
  const lines = text
    .replace(/\n\n.*/s, "")
    .split("\n")
    .flatMap((line) => {
      const [name = "", value = ""] = line.split(":", 2).map((part) => part.trim());
      if (name === "flags")
        return `flags\t: ${value
          .split(" ")
          .filter((flag) => cpuFlags.some((one) => one === flag))
          .join(" ")}`;
      return /^(?:vendor_id|cpu family|model)$/.test(name) && /^\w{1,32}$/.test(value) ? `${name}\t: ${value}` : [];
    });
  return `${lines.join("\n")}\n`;
}

/** Mount points and whether they are read-only or noexec; not what is mounted there, nor from where. */
function outlineMounts(text: string): string {
  const options = (words = "") =>
    words
      .split(",")
      .filter((option) => ["ro", "rw", "noexec"].includes(option))
      .join();
  return text
    .split("\n")
    .flatMap((line) => {
      const [before = "", after = ""] = line.split(" - ", 2);
      const [, , , , mountPoint, own] = before.split(" ");
      return mountPoint === undefined
        ? []
        : `0 0 0:0 / ${mountPoint} ${options(own)} - - - ${options(after.split(" ")[2])}\n`;
    })
    .join("");
}

/** Only the mounts that something lies on that the plan asked about: all others are those of pods. */
function keepMountsOf(calls: Calls): void {
  const asked = Object.entries(calls).flatMap(([name, answer]) =>
    name.startsWith("realpath ") && typeof answer === "string" ? answer : [],
  );
  const above = new Set(["/"]);
  for (const path of asked) for (let part = path; part !== "/"; part = posix.dirname(part)) above.add(part);
  const keep = (text: string) =>
    text
      .split("\n")
      .filter((line) => {
        const [, , , , mountPoint] = line.split(" ");
        return mountPoint !== undefined && above.has(mountPoint);
      })
      .join("\n");
  const file = calls[`readFile ${mountinfo}`];
  if (isText(file)) file.text = keep(file.text);
  const output = calls[`run cat ${mountinfo}`] as { stdout: string } | undefined;
  if (output !== undefined) output.stdout = keep(output.stdout);
}

const isText = (answer: Answer | undefined): answer is { text: string } =>
  typeof answer === "object" && answer !== null && "text" in answer;
