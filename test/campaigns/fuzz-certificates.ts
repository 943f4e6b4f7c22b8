// fuzz-certificates.ts [SECONDS, default 60]: damages certificates until the time is up, as a stack file could hold them.
// What is accepted is written to a host by the real script, run by a real shell: the file then holds the same
// certificates, by openssl's word as well, and nothing else happened. What is not accepted is refused with a Refusal.
import { spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { registryScript } from "../../components/bare-metal-scripts.ts";
import { authorities } from "../../components/config/certificates.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { certificate } from "../fixtures/certificates.ts";

const [seconds = "60"] = process.argv.slice(2);
const good = [certificate("authority"), certificate("another"), certificate("vouches-for-itself")];
const known = new Set(good.map((pem) => new X509Certificate(pem).fingerprint256));
const commands = ["CONTENT", "touch executed", "$(touch executed)", "`touch executed`", "'; touch executed; '", "EOF"];
const edges = ["-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----"];
const line = fc.oneof(
  fc.constantFrom(...commands, ...edges, ...good.flatMap((pem) => pem.split("\n"))),
  fc.string({ unit: "binary", maxLength: 80 }),
  fc.base64String({ maxLength: 64 }),
);
/** Whole certificates, with lines put in, left out, moved, or changed by a character. */
const texts = fc
  .tuple(
    fc.array(fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...good) }, line), { minLength: 1, maxLength: 5 }),
    fc.array(fc.tuple(fc.constantFrom("insert", "remove", "swap", "change"), fc.nat(60), line), { maxLength: 3 }),
    fc.constantFrom("\n", "\r\n"),
  )
  .map(([parts, edits, newline]) => {
    const lines = parts.flatMap((part) => part.trimEnd().split("\n"));
    for (const [edit, position, text] of edits) {
      const at = position % lines.length;
      if (edit === "insert") lines.splice(at, 0, text);
      else if (edit === "remove" && lines.length > 1) lines.splice(at, 1);
      else if (edit === "swap") lines.push(...lines.splice(at, 1));
      else lines[at] = (lines[at] ?? "").replace(/[A-Za-z]/, text.slice(0, 1));
    }
    return lines.join(newline);
  });

let refused = 0;
let accepted = 0;
const property = fc.property(texts, (text) => {
  let canonical: string;
  try {
    canonical = authorities(text);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    refused += 1;
    return;
  }
  accepted += 1;
  const root = mkdtempSync(join(tmpdir(), "fuzz-certificates-"));
  try {
    const env = { PATH: process.env.PATH ?? "", ROOT: root };
    const { status, stderr } = spawnSync("sh", ["-s"], {
      cwd: root,
      env,
      encoding: "utf8",
      input: registryScript("mirror.example", canonical),
    });
    if (status !== 0 || stderr !== "") throw new Error(`the script ended with ${status}: ${stderr}`);
    if (existsSync(join(root, "executed")) || readdirSync(root).join() !== "etc") throw new Error("something was run");
    const file = join(root, "etc/containerd/certs.d/mirror.example/ca.crt");
    const arrived = readFileSync(file, "utf8");
    if (arrived !== canonical) throw new Error("the file differs from what was accepted");
    const blocks = arrived.split(/(?<=-----END CERTIFICATE-----\n)/);
    for (const block of blocks) {
      const { fingerprint256 } = new X509Certificate(block);
      // A changed character may make another certificate that still parses; it must be in the text as it is in the file.
      const body = block.split("\n").slice(1, -2).join("");
      if (!known.has(fingerprint256) && !text.replaceAll(/\s/g, "").includes(body))
        throw new Error("a certificate arrived that was not in the text");
    }
    const shown = spawnSync("openssl", ["storeutl", "-noout", "-certs", file], { encoding: "utf8" });
    if (!shown.stdout.includes(`Total found: ${blocks.length}`)) throw new Error(`openssl found: ${shown.stdout}`);
  } finally {
    rmSync(root, { recursive: true });
  }
});
const result = fc.check(property, {
  numRuns: Number.POSITIVE_INFINITY,
  interruptAfterTimeLimit: Number(seconds) * 1000,
  endOnFailure: true,
});
const wrong = result.failed && !result.interrupted;
console.log(`${wrong ? "FAILED" : "ok"}: ${accepted + refused} texts, ${accepted} accepted, ${refused} refused`);
if (wrong) console.log(fc.defaultReportMessage(result));
process.exitCode = wrong || accepted === 0 ? 1 : 0;
