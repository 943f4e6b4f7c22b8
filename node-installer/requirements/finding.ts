/** Something about a host that keeps a runtime from working (error), or from working well (warning). */
export interface Finding {
  /** Kebab-case, stable. */
  code: string;
  severity: "error" | "warning";
  /** What is wrong, why it matters, and what to do. */
  message: string;
  /** The fix takes effect only after a reboot, and the installer never reboots. */
  needsReboot: boolean;
}

export const error = (code: string, message: string, needsReboot = false): Finding => ({
  code,
  severity: "error",
  message,
  needsReboot,
});
export const warning = (code: string, message: string): Finding => ({
  code,
  severity: "warning",
  message,
  needsReboot: false,
});
