import DefaultTheme from 'vitepress/theme-without-fonts'
import './shallot.css'

export default DefaultTheme
