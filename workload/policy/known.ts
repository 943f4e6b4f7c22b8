import type { FlavourName } from "../../runtime/flavours.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { isAtLeast } from "../../runtime/version.ts";
import type { Problem } from "../problems.ts";
import type { PolicyInput } from "./pod-policy.ts";
import { literally, type Pinned } from "./variables.ts";

/**
 * The releases whose requests these rules were read from: agent.proto and oci.proto are the same in all of them, and so is
 * what the two runtimes send. Later ones were not read. Of Contrast's build, what its patches for 4.0.0 change was read.
 */
const coveredKata: Partial<Record<FlavourName, { from: string; to: string }>> = {
  "kata-go": { from: "4.0.0", to: "4.1.0" },
  "kata-rs": { from: "4.0.0", to: "4.1.0" },
  "contrast-go": { from: "4.0.0", to: "4.0.0" },
};

/** @throws Refusal for a runtime whose requests the rules were not made for */
export function requireCovered({ platform, flavour, kataVersion, guestPull }: PolicyInput["runtime"]): void {
  const refuse = (why: string) =>
    new Refusal(
      "policy-not-covered",
      `No policy is made for ${flavour} ${kataVersion} on ${platform}: ${why}. Give a policy of your own in initdata.data["policy.rego"].`,
    );
  if (!guestPull) throw refuse("the rules are for guests that pull the images themselves");
  const covered = coveredKata[flavour];
  if (covered === undefined) throw refuse(`the rules know no requests of ${flavour}`);
  const { from, to } = covered;
  const [version = ""] = kataVersion.split(/[-+]/);
  if (!isAtLeast(kataVersion, from) || !isAtLeast(to, version))
    throw refuse(`the rules know the requests of ${from === to ? from : `${from} to ${to}`} only`);
}

/** Of what Kubernetes makes the ends of generated names (k8s.io/apimachinery/pkg/util/rand). */
const random = "[bcdfghjklmnpqrstvwxz2456789]";

/** An anchored pattern for the names of the pods that an object makes. */
export function podNamePattern({ kind, name }: PolicyInput["owner"], problems: Problem[]): string {
  // kubelet cuts host names at 63 characters, and names that the API server generates end early (58 before the random end).
  const longest = { Pod: 63, Deployment: 46, ReplicaSet: 57, DaemonSet: 57, StatefulSet: 52, Job: 50, CronJob: 38 }[
    kind
  ];
  if (name.length > longest)
    problems.push({
      field: "metadata.name",
      message: `has ${name.length} characters, but only ${longest} are sure to be whole in its pods' host names`,
    });
  const base = literally(name);
  const patterns: Record<PolicyInput["owner"]["kind"], string> = {
    Pod: base,
    Deployment: `${base}-${random}{1,10}-${random}{5}`,
    ReplicaSet: `${base}-${random}{5}`,
    DaemonSet: `${base}-${random}{5}`,
    StatefulSet: `${base}-[0-9]{1,10}`,
    Job: `${base}(-[0-9]{1,6})?-${random}{5}`,
    CronJob: `${base}-[0-9]{1,12}(-[0-9]{1,6})?-${random}{5}`,
  };
  return `^${patterns[kind]}$`;
}

/** A pod's host name: what the template says, else its name. Controllers of StatefulSets and indexed Jobs set their own. */
export function hostnameOf({ kind, name }: PolicyInput["owner"], given: string | undefined): Pinned {
  if (kind === "StatefulSet") return { like: "^{pod}$" };
  if (given !== undefined) return given;
  if (kind === "Job") return { like: `^({pod}|${literally(name)}-[0-9]{1,6})$` };
  if (kind === "CronJob") return { like: `^({pod}|${literally(name)}-[0-9]{1,12}-[0-9]{1,6})$` };
  return { like: "^{pod}$" };
}

/** What the controller of indexed Jobs adds to each container; see furtherVariables. */
export const jobVariables = ({ kind }: PolicyInput["owner"]): string[] =>
  kind === "Job" || kind === "CronJob" ? ["JOB_COMPLETION_INDEX=[0-9]{1,6}"] : [];

/** Names of x86-64's signals from 1 on, as containerd knows them (github.com/moby/sys/signal). */
const signalNames =
  "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS".split(
    " ",
  );

const secondNames: Record<string, string> = { IOT: "ABRT", CLD: "CHLD", POLL: "IO" };

/** The number of the signal that an image or a container asks to be stopped with: "SIGQUIT", "RTMIN+3" or "3". */
export function stopSignal(given: string): number | undefined {
  const name = given.toUpperCase().replace(/^SIG/, "");
  const [, end, distance = "0"] = /^(RTMIN(?=$|\+)|RTMAX(?=$|-))(?:[+-](\d+))?$/.exec(name) ?? [];
  const number = /^\d+$/.test(name)
    ? Number(name)
    : end === undefined
      ? signalNames.indexOf(secondNames[name] ?? name) + 1
      : end === "RTMIN"
        ? 34 + Number(distance)
        : 64 - Number(distance);
  return number >= 1 && number <= 64 ? number : undefined;
}

/** The reference as the template has it and as containerd writes it in full; none if it is not of this digest. */
export function referencesOf(reference: string, digest: string): string[] {
  if (!reference.endsWith(`@${digest}`) || !/^sha256:[0-9a-f]{64}$/.test(digest)) return [];
  const [first = "", ...rest] = reference.split("/");
  const hasHost = rest.length > 0 && (/[.:]/.test(first) || first === "localhost");
  if (hasHost) return [reference];
  return [reference, `docker.io/${rest.length === 0 ? "library/" : ""}${reference}`];
}
