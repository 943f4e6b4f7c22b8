import type { CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { pathOf } from "../../../../tools/cli/command.ts";
import { program } from "../../../../tools/cli/main.ts";

/* Every command of the program, and words with which it can be called. */

export const root = await program();
const all = (command: CommandUnknownOpts): CommandUnknownOpts[] => [command, ...command.commands.flatMap(all)];
export const commands = all(root);
export const wordsOf = (command: CommandUnknownOpts): string[] => pathOf(command).split(" ").slice(1);

/** Required options and arguments with values that are allowed. */
export const enough = (command: CommandUnknownOpts): string[] => [
  ...command.options.filter(({ mandatory }) => mandatory).map((option) => `${option.long}=${anyValue(option)}`),
  ...command.registeredArguments.filter(({ required }) => required).map(({ argChoices }) => argChoices?.[0] ?? "x"),
];
const special: Record<string, string> = {
  "--spec-hash": "0".repeat(64),
  "--sha256": "0".repeat(64),
  "--file": "kernel=/x",
  "--rtmr0": `2=${"0".repeat(96)}`,
  "--snp-tcb": "bootloader=1,tee=0,snp=1,microcode=1",
  "--chip-id": "0".repeat(128),
  "--mr-seam": "0".repeat(96),
  "--tdx-tcb-svn": "0".repeat(32),
  "--name": "x",
  "--nodes": "[]",
  "--push": "x/y",
  "--allow": "logs",
  "--acknowledge": "exec",
  "--kata": "hypervisor.default_memory=1024",
};
export const anyValue = ({ long = "", argChoices, parseArg }: Option): string =>
  argChoices?.[0] ?? special[long] ?? (parseArg === undefined ? "x" : "1");

export const takingValues = ({ options }: CommandUnknownOpts) => options.filter(({ required }) => required);
