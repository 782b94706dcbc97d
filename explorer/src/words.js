// Text: always textContent, never markup.

export const $ = (id) => document.getElementById(id);

export function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
export const count = (n) => n.toLocaleString("en");

// What changes many times a second is read out when it has come to rest.
export function calm(element, wait = 250) {
  let timer = 0;
  return (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => (element.textContent = text), wait);
  };
}
