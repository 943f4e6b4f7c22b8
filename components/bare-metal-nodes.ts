import { Command as LocalCommand } from "@pulumi/command/local/command.js";
import { Command } from "@pulumi/command/remote/command.js";
import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { canonicalJson, sha256 } from "../runtime/canonical.ts";
import { bareMetalNodesCard } from "../runtime/cards.ts";
import { type CommandPurpose, commandName } from "../runtime/names.ts";
import { platforms } from "../runtime/platforms.ts";
import { quote } from "../runtime/shell.ts";
import { distributionNames, type HostRequirements, platformNames } from "../runtime/spec.ts";
import { formerly } from "./aliases.ts";
import { applied, checkArguments, input, inputs, type Shape, WrongArguments } from "./arguments.ts";
import { joinScript, prepareScript, registryScript, unprepareScript, unregistryScript } from "./bare-metal-scripts.ts";
import { outdated } from "./config/certificates.ts";
import { processors } from "./config/group-rules.ts";
import { fingerprintOf } from "./config/host-keys.ts";
import { imageReference } from "./config/image-reference.ts";
import { nodeName } from "./config/kubernetes-names.ts";
import { listedTwice } from "./config/overlap.ts";
import { registryCa, secret } from "./config/registry-schema.ts";
import { groupSchema, host, privateKey, user } from "./config/schema.ts";
import { checkScript } from "./host-check.ts";
import { onlyHosts } from "./known-group.ts";
import { commandInterpreter, packageCommand } from "./package-command.ts";
import type { DistributionName, OnDestroy, PlatformName } from "./words.ts";

/** A host that is reached over SSH. */
export interface HostArgs {
  /** The node's name in the cluster. Plain, because resources are named after it. */
  name: string;
  /**
   * Host name or IP address, such as the output of a machine that the same program creates.
   *
   * @example "192.0.2.11"
   */
  address: pulumi.Input<string>;
  /**
   * TCP port of its SSH server.
   *
   * @default 22
   */
  port?: pulumi.Input<number> | undefined;
  /**
   * The host's public key as in known_hosts, type and key. Checked: another host that answers is refused.
   *
   * @example "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…"
   */
  hostKey: pulumi.Input<string>;
}

/** How all hosts of a group are reached and prepared. */
export interface HostAccessArgs {
  /** The hosts; their order has no meaning. Plain, because it decides the number of resources. */
  hosts: HostArgs[];
  /**
   * The user to log in as; one other than root must be allowed to become root without a password.
   *
   * @default "root"
   */
  user?: pulumi.Input<string> | undefined;
  /** Content of the private key to log in with. A secret. */
  privateKey: pulumi.Input<string>;
  /**
   * Shell script, run once as root on a host that is in no cluster yet: the one argument that is a program by nature. It is
   * passed on standard input, as it is. A secret. Whether it is given is plain: it decides which commands are registered.
   *
   * @default none: the hosts are members already
   */
  joinCommand?: pulumi.Input<string> | undefined;
}

/** Arguments of `BareMetalNodes`. */
export interface BareMetalNodesArgs extends HostAccessArgs {
  /** containerd, aks, k3s, rke2, k0s or microk8s. Plain, because the scripts are made for it. */
  distribution: DistributionName;
  /** Those of every runtime that the hosts should serve. Plain, because the scripts are made for them. */
  platforms: PlatformName[];
  /** The image that the hosts will pull, by digest. */
  image: pulumi.Input<string>;
  /**
   * Certificates, in PEM, of the authorities that the hosts are made to trust for the image's registry. Whether they are
   * given is plain: it decides which commands are registered.
   *
   * @default none: the registry's certificate is a public one
   */
  registryCa?: pulumi.Input<string> | undefined;
  /**
   * Names of dead hosts: nothing is run on them, not even what never ran, and nothing waits for them. Plain, because it
   * decides which commands are registered.
   *
   * @default []
   * @example ["node-7"]
   */
  ignoreNodes?: string[] | undefined;
  /**
   * What happens to the hosts' settings when they leave the stack: "uninstall" or "leave". Plain, because the engine needs
   * it when they are no longer in the program.
   *
   * @default "uninstall"
   */
  onDestroy?: OnDestroy;
}

const hostArgs = z.strictObject({ ...inputs(host.shape), name: nodeName } satisfies Shape<HostArgs>);

export const hostAccessArgs = {
  hosts: z.array(hostArgs).min(1, { error: "must list at least one host" }),
  user: input(user),
  privateKey: input(privateKey),
  joinCommand: input(secret).optional(),
} satisfies Shape<HostAccessArgs>;

const bareMetalNodesArgs = z.strictObject({
  ...hostAccessArgs,
  distribution: z.enum(distributionNames),
  platforms: z.array(z.enum(platformNames)).check(({ value, issues }) => {
    const message = processors(value);
    if (message !== undefined) issues.push({ code: "custom", message, input: value });
  }),
  image: input(imageReference),
  registryCa: input(registryCa).optional(),
  ignoreNodes: z.array(nodeName).default([]),
  onDestroy: groupSchema.shape.onDestroy,
} satisfies Shape<BareMetalNodesArgs>);

type Checked = z.output<typeof bareMetalNodesArgs>;
type CheckedHost = z.output<typeof hostArgs>;

/**
 * Bare-metal hosts, prepared over SSH: kernel modules, limits and sysctls, checks of the processor's confidential
 * computing, and membership in the cluster. One command per concern, so that previews are readable.
 */
export class BareMetalNodes extends pulumi.ComponentResource {
  /** The hosts' names in the cluster, sorted. */
  readonly nodeNames: pulumi.Output<string[]>;

  constructor(name: string, args: BareMetalNodesArgs, opts?: pulumi.ComponentResourceOptions) {
    const checked = checkArguments(`BareMetalNodes ${name}`, bareMetalNodesArgs, args);
    const twice = [...listedTwice([onlyHosts(checked.hosts)])];
    if (twice.length > 0) throw new WrongArguments(`BareMetalNodes ${name}`, twice);
    const hosts = checked.hosts.toSorted((a, b) => (a.name < b.name ? -1 : 1));
    const requirements = combined(checked.platforms.map((platform) => platforms[platform].host));
    const ignored = checked.ignoreNodes;
    super(bareMetalNodesCard.type, name, bareMetalNodesCard.build({ hosts, ignored, requirements }), opts);
    this.#warnOutdated(checked.registryCa);
    for (const host of hosts) this.#host(name, host, checked, requirements);
    this.nodeNames = pulumi.output(hosts.map((host) => host.name));
    this.registerOutputs({ nodeNames: this.nodeNames });
  }

  #warnOutdated(registryCa: Checked["registryCa"]): void {
    if (registryCa === undefined) return;
    applied(registryCa, (pem) => {
      for (const sentence of outdated(pem, new Date()))
        pulumi.log.warn(`registryCa: ${sentence} Hosts trust no registry by it.`, this);
    });
  }

  #host(parent: string, host: CheckedHost, args: Checked, requirements: HostRequirements): void {
    const { distribution, image, registryCa, joinCommand, onDestroy, user } = args;
    const dead = args.ignoreNodes.includes(host.name);
    if (dead) {
      const then = "What was run before stays; the rest is run once its name is removed from ignoreNodes.";
      pulumi.log.warn(
        `Host ${host.name} is skipped: it is named in ignoreNodes. Nothing is run on it over SSH. ${then}`,
        this,
      );
    }
    const connection = {
      host: host.address,
      port: host.port,
      user,
      privateKey: pulumi.secret(args.privateKey),
      hostKey: host.hostKey,
      // Whether the host answers at all is known by then.
      dialErrorLimit: 4,
      perDialTimeout: 15,
    };
    // Scripts are passed on standard input, so that their diffs are by line and the command stays the same.
    const check = { create: "sh -s", stdin: checkScript(requirements, distribution) };
    const prepare = {
      create: "sh -s",
      stdin: prepareScript(requirements, distribution),
      delete: unprepareScript(distribution),
    };
    const concerns: [CommandPurpose, Verbs][] = [
      ["prepare", prepare],
      ["check", check],
    ];
    if (registryCa !== undefined) {
      const registry = applied(image, registryOf);
      const stdin = applied([registry, registryCa] as const, ([host, pem]) => registryScript(host, pem));
      concerns.push(["registry", { create: "sh -s", stdin, delete: applied(registry, unregistryScript) }]);
    }
    if (joinCommand !== undefined)
      concerns.push(["join", { create: joinScript(distribution), stdin: pulumi.secret(joinCommand) }]);

    // What the stack has recorded of a dead host stays as it is, verbs included.
    const options = { parent: this, ...(dead && { ignoreChanges: ["*"] }) };
    let before: pulumi.Resource = new LocalCommand(
      `${parent}-${commandName(host.name, "reach")}`,
      {
        ...(!dead && { create: applied([host.address, host.port, host.hostKey] as const, awaitHost) }),
        interpreter: commandInterpreter(),
        // Not read by the command: whatever is run on the host next, this is run before.
        environment: { HOST_COMMANDS: pulumi.secret(applied([connection, concerns], digest)) },
        addPreviousOutputInEnv: false,
      },
      options,
    );
    for (const [concern, verbs] of concerns)
      before = new Command(
        `${parent}-${commandName(host.name, concern)}`,
        // sshd accepts no environment variables by default. A command without verbs connects to nothing: a dead host's
        // command that never ran is registered like that, and a later update runs it.
        { connection, addPreviousOutputInEnv: false, ...(!dead && asRoot(user, verbs)) },
        {
          ...options,
          aliases: formerly(commandName(host.name, concern)),
          dependsOn: before,
          ...((dead || onDestroy === "leave") && { retainOnDelete: true }),
        },
      );
  }
}

const awaitHost = ([address, port, hostKey]: readonly [string, number, string]): string =>
  packageCommand("await-host", ...["--address", address, "--port", `${port}`, "--fingerprint", fingerprintOf(hostKey)]);

const digest = (value: unknown): string => sha256(canonicalJson(value));

interface Verbs {
  create: string;
  delete?: pulumi.Input<string>;
  stdin?: pulumi.Input<string>;
}

/** Everything here needs root. */
function asRoot(user: pulumi.Input<string>, verbs: Verbs) {
  const wrap = (script: pulumi.Input<string>) =>
    applied([user, script] as const, ([user, script]) => (user === "root" ? script : `sudo -n sh -c ${quote(script)}`));
  return {
    ...verbs,
    create: wrap(verbs.create),
    ...(verbs.delete !== undefined && { delete: wrap(verbs.delete) }),
  };
}

/** host[:port] of a reference by digest. */
const registryOf = (image: string): string => image.slice(0, image.indexOf("/"));

/** What several runtimes need together. Two kinds of confidential computing need two kinds of processor, hence two groups. */
function combined(requirements: HostRequirements[]): HostRequirements {
  const first = <T extends string>(values: T[], none: T): T => values.find((value) => value !== none) ?? none;
  return {
    tee: first(
      requirements.map(({ tee }) => tee),
      "none",
    ),
    virtualization: first(
      requirements.map(({ virtualization }) => virtualization),
      "none",
    ),
    gpu: requirements.some(({ gpu }) => gpu),
    guestPull: requirements.some(({ guestPull }) => guestPull),
  };
}
