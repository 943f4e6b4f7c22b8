import { listed } from "../../runtime/printable.ts";
import { converge } from "../install/converge.ts";
import { type Options, openEnvironment } from "./context.ts";

export async function install(options: Options): Promise<number> {
  const { environment } = await openEnvironment(options);
  const { changed, handlers, blocked } = await converge(environment, { retry: options.retry });
  const kept = blocked.map(
    ({ handler, pods }) => ` ${handler} is no longer listed, but stays while used by ${listed(pods)}.`,
  );
  options.printError(
    `${changed ? "Installed" : "Nothing to do"}: this node serves ${handlers.join(", ") || "none of the handlers"}.${kept.join("")}\n`,
  );
  return 0;
}

/** Converges to an empty list of runtimes; does nothing at all while a pod uses one that is to be removed. */
export async function uninstall(options: Options): Promise<number> {
  const { environment } = await openEnvironment(options, { runtimes: [] });
  const { changed } = await converge(environment, { refuseBlocked: true, retry: options.retry });
  options.printError(changed ? "Uninstalled.\n" : "Nothing to do: nothing of this group is installed on this node.\n");
  return 0;
}
