import { Command } from "@pulumi/command/remote/command.js";
import * as pulumi from "@pulumi/pulumi";
import { bareMetalNodesCard } from "../runtime/cards.ts";
import { type CommandPurpose, commandName } from "../runtime/names.ts";
import { quote } from "../runtime/shell.ts";
import type { DistributionName, HostRequirements } from "../runtime/spec.ts";
import { bareMetalNodesArgs, checkArguments, registryOf } from "./arguments.ts";
import { joinScript, prepareScript, registryScript, unprepareScript, unregistryScript } from "./bare-metal-scripts.ts";
import { outdated } from "./certificates.ts";
import { checkScript } from "./host-check.ts";

export interface HostArgs {
  /** The node's name in the cluster. */
  name: string;
  /** Host name or IP address. */
  address: string;
  port: number;
  /** As in known_hosts, type and key. Checked: another host that answers is refused. */
  hostKey: string;
}

export interface BareMetalNodesArgs {
  hosts: HostArgs[];
  user: string;
  privateKey: pulumi.Input<string>;
  distribution: DistributionName;
  /** Those of every runtime that the hosts should serve. */
  requirements: HostRequirements[];
  /**
   * Shell script, run once as root on a host that is in no cluster yet: the one argument that is a program by nature. It is
   * passed on standard input, as it is.
   */
  joinCommand?: pulumi.Input<string> | undefined;
  /** The image that the hosts will pull, and its registry's CA certificate in PEM, if that is not a public one. */
  image: pulumi.Input<string>;
  registryCa?: string | undefined;
  /** Names of dead hosts: nothing is run on them, not even what never ran, and nothing waits for them. */
  ignore: string[];
  /** "uninstall" or "leave": what happens to the hosts' settings when they leave the stack. */
  onDestroy?: string | undefined;
}

/**
 * Bare-metal hosts, prepared over SSH: kernel modules, limits and sysctls, checks of the processor's confidential
 * computing, and membership in the cluster. One command per concern, so that previews are readable.
 */
export class BareMetalNodes extends pulumi.ComponentResource {
  readonly nodeNames: string[];
  /** The last command of each host, for whatever must wait for the hosts. */
  readonly ready: pulumi.Resource[];

  constructor(name: string, given: BareMetalNodesArgs, opts?: pulumi.ComponentResourceOptions) {
    const { registryCa } = checkArguments(`BareMetalNodes ${name}`, bareMetalNodesArgs, given);
    const args = { ...given, registryCa };
    const hosts = args.hosts.toSorted((a, b) => (a.name < b.name ? -1 : 1));
    const requirements = combined(args.requirements);
    super(bareMetalNodesCard.type, name, bareMetalNodesCard.build({ hosts, ignored: args.ignore, requirements }), opts);
    for (const sentence of args.registryCa === undefined ? [] : outdated(args.registryCa, new Date()))
      pulumi.log.warn(`registryCa: ${sentence} Hosts trust no registry by it.`, this);
    this.ready = hosts.flatMap((host) => this.#host(host, args, requirements));
    this.nodeNames = hosts.map((host) => host.name);
    this.registerOutputs({ nodeNames: this.nodeNames });
  }

  #host(host: HostArgs, args: BareMetalNodesArgs, requirements: HostRequirements): pulumi.Resource[] {
    const { distribution, registryCa, joinCommand, onDestroy = "uninstall" } = args;
    const dead = args.ignore.includes(host.name);
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
      user: args.user,
      privateKey: pulumi.secret(args.privateKey),
      hostKey: host.hostKey,
      // A minute in total: a host that does not answer is reported, not waited for.
      dialErrorLimit: 4,
      perDialTimeout: 15,
    };
    const run = (
      concern: CommandPurpose,
      command: { create: string; delete?: pulumi.Input<string>; stdin?: pulumi.Input<string> },
      after: pulumi.Resource[],
    ) =>
      new Command(
        commandName(host.name, concern),
        // sshd accepts no environment variables by default. A command without verbs connects to nothing: a dead host's
        // command that never ran is registered like that, and a later update runs it.
        { connection, addPreviousOutputInEnv: false, ...(!dead && asRoot(args.user, command)) },
        {
          parent: this,
          dependsOn: after,
          // What the stack has recorded of a dead host stays as it is, verbs included.
          ...(dead && { ignoreChanges: ["*"] }),
          ...((dead || onDestroy === "leave") && { retainOnDelete: true }),
        },
      );

    // Scripts are passed on standard input, so that their diffs are by line and the command stays the same.
    const prepare = run(
      "prepare",
      { create: "sh -s", stdin: prepareScript(requirements, distribution), delete: unprepareScript(distribution) },
      [],
    );
    const check = run("check", { create: "sh -s", stdin: checkScript(requirements) }, [prepare]);
    const ready = [check];
    if (registryCa !== undefined) {
      const registry = pulumi.output(args.image).apply(registryOf);
      const stdin = registry.apply((host) => registryScript(host, registryCa));
      ready.push(run("registry", { create: "sh -s", stdin, delete: registry.apply(unregistryScript) }, [check]));
    }
    if (joinCommand === undefined) return ready;
    return [run("join", { create: joinScript(distribution), stdin: pulumi.secret(joinCommand) }, ready)];
  }
}

/** Everything here needs root; another user must be allowed to become root without a password. */
function asRoot<T extends { create: string; delete?: pulumi.Input<string> }>(user: string, command: T): T {
  if (user === "root") return command;
  const wrap = (script: string) => `sudo -n sh -c ${quote(script)}`;
  return {
    ...command,
    create: wrap(command.create),
    ...(command.delete !== undefined && { delete: pulumi.output(command.delete).apply(wrap) }),
  };
}

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
