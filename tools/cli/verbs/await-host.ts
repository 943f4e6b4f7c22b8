import { exitWith, Verb } from "../command.ts";
import { between, wholeNumber } from "../values.ts";

export const verb = () =>
  new Verb("await-host")
    .description(
      `Waits until a host's SSH server answers, such as while the host starts. Engines wait for ever on a host that
accepts the connection and says nothing. Logs in nowhere.`,
    )
    .requiredOption("--address <address>", "the host's name or IP address")
    .option("--port <number>", "of its SSH server", between(1, 65_535), 22)
    .option("--fingerprint <SHA256:…>", "of the host key that is expected, to be shown; it is not checked here")
    .option("--seconds <number>", "give up after this long", wholeNumber, 300)
    .addHelpText("after", "\nExit codes: 0 it answers, 1 it does not, or SSH_AUTH_SOCK leads nowhere.")
    .action(async (options) => exitWith(await (await import("../../hosts/await-host.ts")).awaitHost(options)));
