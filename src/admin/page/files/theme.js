// Light or dark: as the system has it, or as somebody chose.

const KEY = "convey-theme";
const NEXT = { system: "dark", dark: "light", light: "system" };
const WORDS = { system: "as the system", dark: "dark", light: "light" };

function chosen() {
  try {
    return localStorage.getItem(KEY) ?? "system";
  } catch {
    return "system";
  }
}

function apply(theme) {
  if (theme === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
}

/** The next of system, dark, light; what it is now in words. */
export function turnTheme() {
  const theme = NEXT[chosen()] ?? "system";
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // private windows may keep nothing: it lasts as long as the page
  }
  apply(theme);
  return WORDS[theme];
}

apply(chosen());
